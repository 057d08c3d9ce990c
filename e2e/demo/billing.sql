-- The third server: what the foreign tables of the shop point to. Run in a
-- database named billing. psql variables, all optional: billing_user,
-- billing_password, and environment_name, which the rows carry, so that one sees
-- which server answered.
\if :{?billing_user} \else \set billing_user billing_reader \endif
\if :{?billing_password} \else \set billing_password billing \endif
\if :{?environment_name} \else \set environment_name production \endif
SET client_min_messages = warning;
CREATE ROLE :"billing_user" LOGIN PASSWORD :'billing_password';
CREATE TABLE invoice (
    id bigint PRIMARY KEY,
    order_id bigint NOT NULL,
    amount numeric(12, 2) NOT NULL,
    paid boolean NOT NULL,
    environment text NOT NULL
);
INSERT INTO invoice SELECT i, i, (i * 7 % 50000) / 100.0, i % 5 > 0, :'environment_name' FROM generate_series(1, 1000) i;
CREATE TABLE ledger_entry (at date, account text, amount numeric(14, 2), environment text);
INSERT INTO ledger_entry
    SELECT date '2024-01-01' + i, 'account ' || i % 7, i * 3.5, :'environment_name' FROM generate_series(1, 500) i;
GRANT SELECT ON invoice, ledger_entry TO :"billing_user";

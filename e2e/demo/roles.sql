-- Roles of the demo's shop, for the production and the staging server alike.
-- psql variables, both optional: app_password, reports_password.
\if :{?app_password} \else \set app_password app \endif
\if :{?reports_password} \else \set reports_password reports \endif
SET client_min_messages = warning;
CREATE ROLE shop_owner NOLOGIN;
CREATE ROLE analysts NOLOGIN;
CREATE ROLE app LOGIN PASSWORD :'app_password';
CREATE ROLE reports LOGIN CONNECTION LIMIT 10 PASSWORD :'reports_password';
GRANT analysts TO reports;
GRANT shop_owner TO app;
ALTER ROLE reports SET statement_timeout = '5min';
COMMENT ON ROLE app IS 'what the shop''s own processes log in as';

-- The demo's shop: about 200 MB in several schemas, as an application of some
-- years has them. Run by a superuser in an empty database on PostgreSQL 14 or
-- later, after roles.sql. The same rows at every run.
--
-- psql variables, all optional:
--   scale             1 is about 200 MB; 0.01 is enough to look at
--   billing_host, billing_port, billing_user, billing_password
--                     the server of billing.sql
\if :{?scale} \else \set scale 1 \endif
\if :{?billing_host} \else \set billing_host billing \endif
\if :{?billing_port} \else \set billing_port 5432 \endif
\if :{?billing_user} \else \set billing_user billing_reader \endif
\if :{?billing_password} \else \set billing_password billing \endif
\set ON_ERROR_STOP on
SET client_min_messages = warning;
SET timezone = 'UTC';
SET synchronous_commit = off;
SET maintenance_work_mem = '128MB';
SELECT greatest(20, round(60000 * :scale))::int AS customers,
       greatest(10, round(4000 * :scale))::int AS products,
       greatest(50, round(250000 * :scale))::int AS orders,
       greatest(50, round(280000 * :scale))::int AS events,
       greatest(5, round(3000 * :scale))::int AS documents,
       greatest(2, round(24 * :scale))::int AS images \gset

CREATE EXTENSION citext;
CREATE EXTENSION hstore;
CREATE EXTENSION pg_trgm;
CREATE EXTENSION btree_gist;
CREATE EXTENSION postgres_fdw;
CREATE SCHEMA shop AUTHORIZATION shop_owner;
CREATE SCHEMA analytics;
CREATE SCHEMA content;
CREATE SCHEMA "Legacy Import";
CREATE SCHEMA remote;
COMMENT ON SCHEMA "Legacy Import" IS 'What came from the old shop; its names have spaces and "quotes"';

------------------------------------------------------------ shop
CREATE TYPE shop.order_state AS ENUM ('new', 'paid', 'shipped', 'delivered', 'returned');
CREATE DOMAIN shop.price AS numeric(12, 2) CHECK (VALUE >= 0);
CREATE TYPE shop.address AS (street text, city text, postcode text, country char(2));

CREATE TABLE shop.customer (
    id int GENERATED ALWAYS AS IDENTITY,
    key uuid NOT NULL,
    email citext NOT NULL,
    name text NOT NULL,
    address shop.address,
    phones text[],
    preferences jsonb NOT NULL DEFAULT '{}',
    attributes hstore,
    birthday date,
    signed_up timestamptz NOT NULL,
    email_domain text GENERATED ALWAYS AS (split_part(lower(email::text), '@', 2)) STORED
);
INSERT INTO shop.customer (key, email, name, address, phones, preferences, attributes, birthday, signed_up)
SELECT md5('customer ' || i)::uuid,
    (ARRAY['ann', 'Bob', 'zoë', 'li', 'omar', 'eva'])[1 + i % 6] || '.' || i || '@example.' || (ARRAY['com', 'org', 'net'])[1 + i % 3],
    (ARRAY['Ann', 'Bob', 'Zoë', 'Lǐ', 'Omar', 'Eva'])[1 + i % 6] || ' ' || (ARRAY['Smith', 'O''Neil', 'García', 'Müller', '"Ace" Jones'])[1 + i % 5],
    ROW(i % 200 || ' ' || (ARRAY['High Street', 'Rue de l''Église', 'Bahnhofstraße'])[1 + i % 3], (ARRAY['Oslo', 'Lyon', 'Köln', 'Porto'])[1 + i % 4],
        lpad((i % 100000)::text, 5, '0'), (ARRAY['NO', 'FR', 'DE', 'PT'])[1 + i % 4])::shop.address,
    CASE WHEN i % 3 > 0 THEN ARRAY['+47 ' || i, '+33 ' || i * 7] END,
    jsonb_build_object('newsletter', i % 2 = 0, 'theme', (ARRAY['dark', 'light'])[1 + i % 2], 'sizes', jsonb_build_array(i % 50, i % 9)),
    CASE WHEN i % 4 = 0 THEN hstore('source', 'campaign ' || i % 40) END,
    date '1950-01-01' + (i * 13) % 20000,
    timestamptz '2021-01-01 00:00+00' + (i % 1500) * interval '1 day' + i * interval '1 second'
FROM generate_series(1, :customers) i;

CREATE TABLE shop.product (
    sku text COLLATE "C" NOT NULL,
    title text NOT NULL,
    description text NOT NULL,
    price shop.price NOT NULL,
    weight real,
    tags text[] NOT NULL,
    on_sale daterange,
    search tsvector GENERATED ALWAYS AS (to_tsvector('pg_catalog.english', title || ' ' || description)) STORED
);
INSERT INTO shop.product (sku, title, description, price, weight, tags, on_sale)
SELECT 'SKU-' || lpad(i::text, 6, '0'),
    (ARRAY['Blue', 'Green', 'Large', 'Tiny', 'Wooden'])[1 + i % 5] || ' ' || (ARRAY['chair', 'lamp', 'kettle', 'bicycle', 'clock', 'scarf'])[1 + i % 6] || ' ' || i,
    repeat((ARRAY['A fine thing for the house. ', 'Made to last; easy to clean. ', 'As seen in "Home & Garden". '])[1 + i % 3], 5 + i % 10),
    (100 + i * 37 % 90000) / 100.0, i % 400 / 10.0, ARRAY['tag' || i % 17, 'tag' || i % 5],
    CASE WHEN i % 6 = 0 THEN daterange(date '2024-01-01' + i % 300, date '2024-01-15' + i % 300) END
FROM generate_series(1, :products) i;

CREATE SEQUENCE shop.invoice_number START 100000;
CREATE TABLE shop.orders (
    id bigint NOT NULL,
    customer_id int NOT NULL,
    placed_at timestamptz NOT NULL,
    state shop.order_state NOT NULL DEFAULT 'new',
    total shop.price NOT NULL,
    note text
) PARTITION BY RANGE (placed_at);
SELECT format('CREATE TABLE shop.orders_%s PARTITION OF shop.orders FOR VALUES FROM (%L) TO (%L)',
              to_char(month, 'YYYY_MM'), month, month + interval '1 month')
FROM generate_series(timestamptz '2023-01-01 00:00+00', '2024-12-01 00:00+00', interval '1 month') month \gexec
CREATE TABLE shop.orders_rest PARTITION OF shop.orders DEFAULT;
INSERT INTO shop.orders
SELECT i, 1 + i::bigint * 7919 % :customers, timestamptz '2023-01-01 00:00+00' + i::bigint * (730 * 86400) / :orders * interval '1 second',
    (enum_range(NULL::shop.order_state))[1 + i % 5], (i::bigint * 31 % 100000) / 100.0, CASE WHEN i % 20 = 0 THEN 'leave at the door, ring ' || i END
FROM generate_series(1, :orders) i;
CREATE SEQUENCE shop.order_id OWNED BY shop.orders.id;
ALTER TABLE shop.orders ALTER id SET DEFAULT nextval('shop.order_id');
SELECT setval('shop.order_id', :orders);

CREATE TABLE shop.order_line (
    order_id bigint NOT NULL,
    placed_at timestamptz NOT NULL,
    line smallint NOT NULL,
    sku text COLLATE "C" NOT NULL,
    quantity int NOT NULL CHECK (quantity > 0),
    price shop.price NOT NULL
);
INSERT INTO shop.order_line
SELECT o.id, o.placed_at, l, 'SKU-' || lpad((1 + (o.id * 31 + l * 7) % :products)::text, 6, '0'), 1 + (o.id + l) % 5, (o.id * l % 9000) / 100.0
FROM shop.orders o, generate_series(1, 2) l;

CREATE TABLE shop.stock (sku text COLLATE "C", place text, amount int NOT NULL, during tstzrange);
INSERT INTO shop.stock
SELECT sku, (ARRAY['north', 'south'])[p], length(title) * p, tstzrange('2024-01-01 00:00+00', NULL) FROM shop.product, generate_series(1, 2) p;
CREATE UNLOGGED TABLE shop.session (token text PRIMARY KEY, customer_id int, seen timestamptz);
INSERT INTO shop.session SELECT md5('session ' || i), i, '2024-12-31 00:00+00' FROM generate_series(1, least(1000, :customers)) i;

------------------------------------------------------------ analytics
CREATE TABLE analytics.event (
    id bigint GENERATED BY DEFAULT AS IDENTITY,
    at timestamptz NOT NULL,
    kind text NOT NULL,
    customer_id int,
    address inet,
    payload jsonb NOT NULL,
    duration interval
);
INSERT INTO analytics.event (at, kind, customer_id, address, payload, duration)
SELECT timestamptz '2024-01-01 00:00+00' + i * interval '1 second', (ARRAY['view', 'click', 'search', 'buy'])[1 + i % 4],
    CASE WHEN i % 9 > 0 THEN 1 + i::bigint * 104729 % :customers END, inet '10.0.0.0' + i,
    jsonb_build_object('page', '/product/' || i % 5000, 'referrer', 'https://example.org/' || md5(i::text), 'ms', i % 4000),
    i % 4000 * interval '1 millisecond'
FROM generate_series(1, :events) i;
CREATE TABLE analytics.daily (day date NOT NULL, kind text NOT NULL, events bigint NOT NULL) PARTITION BY LIST (kind);
CREATE TABLE analytics.daily_buy PARTITION OF analytics.daily FOR VALUES IN ('buy');
CREATE TABLE analytics.daily_other PARTITION OF analytics.daily DEFAULT PARTITION BY HASH (day);
CREATE TABLE analytics.daily_other_0 PARTITION OF analytics.daily_other FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE analytics.daily_other_1 PARTITION OF analytics.daily_other FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO analytics.daily SELECT (at AT TIME ZONE 'UTC')::date, kind, count(*) FROM analytics.event GROUP BY 1, 2;

------------------------------------------------------------ content
CREATE TABLE content.page (id int PRIMARY KEY, slug text NOT NULL, title text, published date);
CREATE TABLE content.article (author text, words int) INHERITS (content.page);
INSERT INTO content.page SELECT i, 'page-' || i, 'Page ' || i, date '2024-01-01' + i FROM generate_series(1, 50) i;
INSERT INTO content.article SELECT 1000 + i, 'article-' || i, 'Article ' || i, date '2024-03-01' + i, 'Zoë', i * 11 FROM generate_series(1, 50) i;
CREATE TABLE content.document (id int PRIMARY KEY, name text NOT NULL, body text NOT NULL, raw xml, checksum bytea NOT NULL);
INSERT INTO content.document
SELECT i, 'document ' || i || '.xml', string_agg(md5(i || '/' || j) || E' lorem ipsum; "dolor" \\sit amet\n', '' ORDER BY j),
    xmlparse(CONTENT '<doc id="' || i || '"><title>Document &amp; more</title></doc>'), sha256(i::text::bytea)
FROM generate_series(1, :documents) i, generate_series(1, 80) j GROUP BY i;
CREATE TABLE content.image (id int PRIMARY KEY, name text, data oid NOT NULL);
INSERT INTO content.image
SELECT i, 'image ' || i || '.png', lo_from_bytea(0, (SELECT decode(string_agg(md5(i || '-' || j), '' ORDER BY j), 'hex') FROM generate_series(1, 8192) j))
FROM generate_series(1, :images) i;

CREATE TABLE "Legacy Import"."Order Items (old)" ("Item No." int PRIMARY KEY, "it's ""quoted""" text, "ümläut" numeric, "from" date);
INSERT INTO "Legacy Import"."Order Items (old)"
SELECT i, E'line\none; \\N ' || i, i / 7.0, date '1999-01-01' + i FROM generate_series(1, 2000) i;

------------------------------------------------------------ keys, indexes, views
ALTER TABLE shop.customer ADD PRIMARY KEY (id), ADD UNIQUE (email), ADD CHECK (name <> '');
ALTER TABLE shop.product ADD PRIMARY KEY (sku);
ALTER TABLE shop.orders ADD PRIMARY KEY (id, placed_at), ADD FOREIGN KEY (customer_id) REFERENCES shop.customer;
ALTER TABLE shop.order_line ADD PRIMARY KEY (order_id, placed_at, line), ADD FOREIGN KEY (order_id, placed_at) REFERENCES shop.orders ON DELETE CASCADE,
    ADD FOREIGN KEY (sku) REFERENCES shop.product ON UPDATE CASCADE;
ALTER TABLE shop.stock ADD FOREIGN KEY (sku) REFERENCES shop.product, ADD EXCLUDE USING gist (sku WITH =, place WITH =, during WITH &&);
ALTER TABLE analytics.event ADD PRIMARY KEY (id);
CREATE INDEX customer_name ON shop.customer USING gin (name gin_trgm_ops);
CREATE INDEX customer_preferences ON shop.customer USING gin (preferences jsonb_path_ops);
CREATE INDEX product_search ON shop.product USING gin (search);
CREATE INDEX orders_customer ON shop.orders (customer_id, placed_at DESC) WHERE state <> 'returned';
CREATE INDEX event_at ON analytics.event USING brin (at);
CREATE INDEX event_page ON analytics.event ((payload ->> 'page'));
CREATE STATISTICS shop.order_line_statistics (ndistinct, dependencies) ON sku, quantity FROM shop.order_line;

CREATE VIEW shop.open_order AS SELECT id, customer_id, placed_at, total FROM shop.orders WHERE state IN ('new', 'paid');
CREATE VIEW analytics.customer_value AS
    SELECT c.id, c.name, count(o.id) AS orders, coalesce(sum(o.total), 0) AS value
    FROM shop.customer c LEFT JOIN shop.orders o ON o.customer_id = c.id GROUP BY c.id;
CREATE MATERIALIZED VIEW analytics.monthly AS
    SELECT date_trunc('month', placed_at AT TIME ZONE 'UTC')::date AS month, state, count(*) AS orders, sum(total) AS total
    FROM shop.orders GROUP BY 1, 2;
CREATE UNIQUE INDEX ON analytics.monthly (month, state);
CREATE MATERIALIZED VIEW analytics.best_month AS SELECT month, sum(total) AS total FROM analytics.monthly GROUP BY 1 ORDER BY 2 DESC LIMIT 3;

CREATE FUNCTION shop.order_total(bigint) RETURNS numeric LANGUAGE sql STABLE AS $$ SELECT sum(quantity * price) FROM shop.order_line WHERE order_id = $1 $$;
CREATE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.note := concat_ws('; ', NEW.note, 'changed by ' || current_user);
    RETURN NEW;
END $$;
CREATE TRIGGER touch BEFORE UPDATE ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.touch();
ALTER TABLE shop.customer ENABLE ROW LEVEL SECURITY;
CREATE POLICY app_sees_all ON shop.customer TO app USING (true);
CREATE POLICY reports_see_signed_up ON shop.customer FOR SELECT TO reports USING (signed_up < '2024-01-01 00:00+00');
CREATE PUBLICATION shop_changes FOR TABLE shop.orders, shop.order_line;
COMMENT ON TABLE shop.orders IS 'One row per order; a partition per month';
COMMENT ON COLUMN shop.orders.note IS 'what the customer wrote; may hold "quotes" and ''quotes''';

------------------------------------------------------------ two foreign servers
CREATE SERVER billing_remote FOREIGN DATA WRAPPER postgres_fdw
    OPTIONS (host :'billing_host', port :'billing_port', dbname 'billing', fetch_size '1000', sslmode 'prefer');
CREATE SERVER ledger_remote FOREIGN DATA WRAPPER postgres_fdw
    OPTIONS (host :'billing_host', port :'billing_port', dbname 'billing', application_name 'shop ledger');
CREATE USER MAPPING FOR app SERVER billing_remote OPTIONS ("user" :'billing_user', password :'billing_password');
CREATE USER MAPPING FOR reports SERVER billing_remote OPTIONS ("user" :'billing_user', password :'billing_password');
CREATE USER MAPPING FOR PUBLIC SERVER billing_remote OPTIONS ("user" 'nobody', password 'it''s "nothing"; \ $1');
CREATE USER MAPPING FOR app SERVER ledger_remote OPTIONS ("user" :'billing_user', password :'billing_password');
CREATE FOREIGN TABLE remote.invoice (id bigint, order_id bigint, amount numeric(12, 2), paid boolean, environment text)
    SERVER billing_remote OPTIONS (schema_name 'public', table_name 'invoice');
CREATE FOREIGN TABLE remote.ledger_entry (at date, account text OPTIONS (column_name 'account'), amount numeric(14, 2), environment text)
    SERVER ledger_remote OPTIONS (schema_name 'public');
CREATE VIEW analytics.unpaid AS SELECT o.id, o.total, i.amount FROM shop.orders o JOIN remote.invoice i ON i.order_id = o.id WHERE NOT i.paid;
GRANT USAGE ON FOREIGN SERVER billing_remote, ledger_remote TO app;

------------------------------------------------------------ owners, grants, properties of the database
SELECT format('ALTER %s %I.%I OWNER TO shop_owner', CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, nspname, relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'shop' AND relkind IN ('r', 'p', 'v') ORDER BY relname \gexec
GRANT USAGE ON SCHEMA shop, analytics, content, remote, "Legacy Import" TO app, analysts;
GRANT SELECT ON ALL TABLES IN SCHEMA shop, analytics, content TO analysts;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA analytics, content TO app;
GRANT SELECT ON remote.invoice, remote.ledger_entry TO app, reports;
GRANT SELECT (id, name) ON shop.customer TO PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner IN SCHEMA shop GRANT SELECT ON TABLES TO analysts;
SELECT current_database() AS database \gset
ALTER DATABASE :"database" SET search_path = shop, public;
ALTER ROLE reports IN DATABASE :"database" SET default_transaction_read_only = on;
COMMENT ON DATABASE :"database" IS 'The shop''s orders';
GRANT CONNECT, TEMPORARY ON DATABASE :"database" TO app, reports;
ANALYZE;

-- Three tables of an extension: one whose rows are never dumped, one whose rows
-- are dumped by a condition, one dumped whole with its sequence.
CREATE TABLE shipped (name text PRIMARY KEY, value text);
INSERT INTO shipped VALUES ('made by', 'the extension');

CREATE TABLE setting (name text PRIMARY KEY, value text, is_default boolean NOT NULL DEFAULT false);
INSERT INTO setting VALUES ('color', 'blue', true), ('size', 'medium', true);
SELECT pg_catalog.pg_extension_config_dump('setting', 'WHERE NOT is_default');

CREATE SEQUENCE entry_id;
CREATE TABLE entry (id bigint PRIMARY KEY DEFAULT nextval('entry_id'), body text);
SELECT pg_catalog.pg_extension_config_dump('entry', '');
SELECT pg_catalog.pg_extension_config_dump('entry_id', '');

-- A server that belongs to an extension: its user mappings are not dumped.
CREATE FOREIGN DATA WRAPPER fixture_wrapper;
CREATE SERVER fixture_extension_server FOREIGN DATA WRAPPER fixture_wrapper OPTIONS (host 'extension.invalid');

-- Read once by psql, as the superuser, when the server's volume is empty: three roles and the
-- database. The passwords come from files; the tables are made by `tinywindow db upgrade`.

\set ON_ERROR_STOP on
\if :{?secrets}
\else
    \set secrets /run/secrets
\endif
\set owner_file :secrets '/postgres_owner'
\set app_file :secrets '/postgres_app'
\set viewer_file :secrets '/postgres_viewer'
\set owner_password `cat :owner_file`
\set app_password `cat :app_file`
\set viewer_password `cat :viewer_file`

-- Owns the tables, and is used by upgrades only.
CREATE ROLE tinywindow_owner LOGIN PASSWORD :'owner_password';
-- The bots. `db upgrade --grant-to` grants what it needs; an audit row it can only add.
CREATE ROLE tinywindow_app LOGIN PASSWORD :'app_password';
-- Grafana. It reads, and never for long: a dashboard may not hold up the bots.
CREATE ROLE tinywindow_viewer LOGIN PASSWORD :'viewer_password' CONNECTION LIMIT 5;
ALTER ROLE tinywindow_viewer SET default_transaction_read_only = on;
ALTER ROLE tinywindow_viewer SET statement_timeout = '5s';

CREATE DATABASE tinywindow OWNER tinywindow_owner;
REVOKE ALL ON DATABASE tinywindow FROM PUBLIC;
GRANT CONNECT ON DATABASE tinywindow TO tinywindow_app, tinywindow_viewer;

\connect tinywindow
ALTER DEFAULT PRIVILEGES FOR ROLE tinywindow_owner IN SCHEMA public
    GRANT SELECT ON TABLES TO tinywindow_viewer;

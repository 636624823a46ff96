#!/usr/bin/env bash
# psql and its commands, pg_dump and pg_restore, at libpq's variables.
set -euo pipefail
psql --version | sed 's/(PostgreSQL) \([0-9]*\).*/\1/'
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
psql=(psql -X -v ON_ERROR_STOP=1 -P pager=off)

echo '== \copy from and to files, also in binary and from a program'
seq 1 5000 | sed 's/\(.*\)/\1,row \1/' >in.csv
"${psql[@]}" -q <<'SQL'
CREATE TABLE items (id int PRIMARY KEY, name text, at timestamptz DEFAULT '2024-02-29 12:00:00+00');
\copy items (id, name) FROM in.csv CSV
\copy items TO out.bin BINARY
CREATE TABLE again (LIKE items);
\copy again FROM out.bin BINARY
\copy (SELECT id FROM again WHERE id % 1000 = 0 ORDER BY id) TO STDOUT
\copy again (id) FROM PROGRAM 'seq 5001 5003'
SELECT count(*), sum(id) FROM again;
SQL

echo '== \gdesc, \gset, \gexec and \crosstabview'
"${psql[@]}" <<'SQL'
SELECT id, name, at FROM items WHERE id = 1 \gdesc
SELECT max(id) AS most FROM items \gset
\echo most is :most
SELECT format('CREATE INDEX ON items (%I)', name) FROM (VALUES ('name'), ('at')) AS columns (name) \gexec
SELECT id % 2 AS row, id % 3 AS col, count(*) FROM items GROUP BY 1, 2 ORDER BY 1, 2 \crosstabview
SQL

echo '== \bind by the extended protocol, where psql has it, and variables'
"${psql[@]}" -v name="it's" <<'SQL'
SELECT :'name' AS name, :{?none} AS none;
PREPARE named (int) AS SELECT $1 * 2 AS twice;
EXECUTE named (21);
DEALLOCATE named;
SQL

echo '== \watch until it is interrupted'
echo 'SELECT 1 AS one \watch 0.05' | "${psql[@]}" -At >watched & watching=$!
until [ "$(wc -l <watched)" -ge 5 ]; do read -rt 0.05 <> <(:) || true; done
kill -INT "$watching"
wait "$watching" || true
grep -cx 1 watched | sed 's/^.*$/seen/'

echo '== transactions, savepoints on errors, and \if'
"${psql[@]}" -v ON_ERROR_STOP=0 -v ON_ERROR_ROLLBACK=on 2>&1 <<'SQL'
BEGIN;
INSERT INTO again (id, name) VALUES (-1, 'kept');
SELECT 1/0;
SELECT :'ERROR' AS error, :'SQLSTATE' AS state;
COMMIT;
SELECT name FROM again WHERE id = -1 \gset
\if :{?name}
  \echo it is :name
\endif
SET statement_timeout = '3s';
SELECT pg_sleep(60);
SHOW statement_timeout;
\errverbose
SQL
"${psql[@]}" --single-transaction -c 'DELETE FROM again' -c 'SELECT 1/0' 2>&1 || true

echo '== FETCH_COUNT, LISTEN, and large objects'
"${psql[@]}" -At -v FETCH_COUNT=100 -c 'SELECT id FROM items' | wc -l
"${psql[@]}" -q <<SQL | sed 's/PID [0-9]*/PID/'
LISTEN "$SCHEMA news";
NOTIFY "$SCHEMA news", 'hello';
SELECT 1 AS one;
SQL
head -c 100000 /dev/zero >zeros
"${psql[@]}" -q <<'SQL'
\lo_import zeros
\lo_export :LASTOID back
\lo_unlink :LASTOID
SQL
cmp zeros back && echo 'the same back'

echo '== describe everything'
"${psql[@]}" -c '\d items' -c '\dt' -c '\df twice'

echo '== reconnect with \c, and settings of the first session are gone'
"${psql[@]}" -Atq <<'SQL'
SET work_mem = '7MB';
\c
SHOW work_mem;
SHOW search_path;
SQL

echo '== pg_dump in each format, and pg_restore, also with two jobs'
sum='SELECT count(*), sum(id), min(at) FROM items'
"${psql[@]}" -Atc "$sum"
pg_dump --schema="$SCHEMA" --no-sync -f plain.sql
pg_dump --schema="$SCHEMA" --no-sync -Fc -f custom
pg_dump --schema="$SCHEMA" --no-sync -Fd -f directory
grep -c '^COPY' plain.sql
for from in custom directory; do
    "${psql[@]}" -qc 'DROP TABLE items, again'
    pg_restore -d "$PGDATABASE" --schema="$SCHEMA" --no-owner --exit-on-error "$from"
    "${psql[@]}" -Atc "$sum"
done
"${psql[@]}" -qc 'DROP TABLE items, again'
sed '/^CREATE SCHEMA/d' plain.sql | "${psql[@]}" -q >/dev/null
"${psql[@]}" -Atc "$sum"
"${psql[@]}" -qc 'DROP TABLE items, again'
pg_restore -d "$PGDATABASE" --schema="$SCHEMA" --no-owner --exit-on-error -j 2 directory
"${psql[@]}" -Atc "$sum"

echo '== vacuumdb, reindexdb and pg_isready'
vacuumdb --quiet --analyze --table "$SCHEMA.items"
reindexdb --quiet --table "$SCHEMA.items"
pg_isready >/dev/null && echo ready

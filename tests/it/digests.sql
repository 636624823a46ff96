-- Statements as pg_regress, Django and SQLAlchemy send them. {n} is a number, {s} a string, {list} a list of numbers.
-- Each line makes several texts, which Postgres counts as one statement.
SELECT * FROM onek WHERE unique1 = {n}
SELECT unique1, string4 FROM onek WHERE unique1 < {n} ORDER BY unique1 USING <, string4 USING >
SELECT DISTINCT two, string4, ten FROM onek WHERE ten > {n} ORDER BY two, string4
SELECT DISTINCT ON (string4) string4, two FROM onek WHERE two = {n} ORDER BY string4, two DESC
SELECT count(*) FROM onek
SELECT count(*), avg(unique1) AS average FROM onek WHERE hundred BETWEEN {n} AND 100000
SELECT ten, sum(DISTINCT four) FROM onek GROUP BY ten HAVING sum(DISTINCT four) > {n}
SELECT o.unique1, t.unique2 FROM onek o JOIN tenk1 t ON o.unique1 = t.unique1 WHERE t.hundred = {n}
SELECT o.unique1 FROM onek o LEFT JOIN tenk1 t USING (unique1) WHERE t.unique1 IS NULL AND o.ten = {n}
SELECT * FROM onek o, LATERAL (SELECT unique2 FROM tenk1 t WHERE t.hundred = o.hundred LIMIT {n}) ss
SELECT * FROM onek WHERE EXISTS (SELECT 1 FROM tenk1 WHERE tenk1.unique1 = onek.unique1 AND tenk1.ten > {n})
SELECT * FROM onek WHERE unique1 NOT IN (SELECT unique2 FROM tenk1 WHERE hundred = {n})
SELECT (SELECT max(unique1) FROM tenk1 WHERE hundred < {n}) AS top
SELECT rank() OVER (PARTITION BY four ORDER BY ten), ten, four FROM onek WHERE unique2 < {n}
SELECT sum(unique1) OVER (ORDER BY ten RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) FROM onek WHERE two = {n}
SELECT lag(ten, 1) OVER w FROM onek WHERE four = {n} WINDOW w AS (PARTITION BY four ORDER BY ten)
WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < {n}) SELECT sum(n) FROM t
WITH q AS (SELECT unique1 FROM onek WHERE ten = {n}) SELECT * FROM q JOIN tenk1 USING (unique1)
WITH moved AS (DELETE FROM onek WHERE ten = {n} RETURNING *) INSERT INTO tenk1 SELECT * FROM moved
SELECT unique1 FROM onek WHERE ten = {n} UNION SELECT unique2 FROM tenk1 WHERE ten = {n}
SELECT unique1 FROM onek WHERE ten = {n} UNION ALL SELECT unique2 FROM tenk1
SELECT unique1 FROM onek INTERSECT SELECT unique2 FROM tenk1 WHERE hundred = {n}
SELECT unique1 FROM onek EXCEPT SELECT unique2 FROM tenk1 WHERE hundred = {n}
SELECT CASE WHEN ten > {n} THEN 'many' WHEN ten IS NULL THEN 'none' ELSE {s} END FROM onek
SELECT COALESCE(string4, {s}), NULLIF(ten, {n}) FROM onek
SELECT string4 || {s} FROM onek WHERE string4 LIKE {s}
SELECT upper(string4), length(string4) FROM onek WHERE string4 ILIKE {s} AND NOT two = {n}
SELECT substring(string4 FROM 2 FOR {n}) FROM onek
SELECT position({s} IN string4) FROM onek
SELECT extract(year FROM now()), ten FROM onek WHERE unique1 = {n}
SELECT ten::text, CAST(four AS bigint) FROM onek WHERE hundred = {n}
SELECT ten + {n}, ten - {n}, ten * {n}, ten % 7 FROM onek
SELECT unique1 FROM onek WHERE (ten, four) = ({n}, {n})
SELECT unique1 FROM onek ORDER BY unique1 LIMIT {n} OFFSET {n}
SELECT unique1 FROM onek ORDER BY ten DESC NULLS LAST FETCH FIRST {n} ROWS ONLY
SELECT unique1 FROM onek WHERE ten = {n} FOR UPDATE
SELECT unique1 FROM onek WHERE ten = {n} FOR SHARE SKIP LOCKED
SELECT ARRAY[{n}, {n}], ten FROM onek
SELECT unique1 FROM onek WHERE ten = ANY (ARRAY[{list}])
SELECT unique1 FROM onek WHERE ten IN ({list})
SELECT unique1 FROM onek WHERE ten NOT IN ({list}) AND four = {n}
SELECT grouping(ten), ten, four, count(*) FROM onek WHERE two = {n} GROUP BY ROLLUP (ten, four)
SELECT string_agg(string4, {s} ORDER BY unique1) FROM onek GROUP BY ten
SELECT count(*) FILTER (WHERE ten > {n}) FROM onek
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY ten) FROM onek WHERE four = {n}
SELECT * FROM generate_series(1, {n}) AS g(i)
SELECT jsonb_build_object('a', ten) -> {s} FROM onek
SELECT * FROM onek TABLESAMPLE SYSTEM (50) WHERE ten = {n}
VALUES ({n}, {s})
INSERT INTO notes (title, body) VALUES ({s}, {s})
INSERT INTO notes (title, body, stars) VALUES ({s}, {s}, {n}) RETURNING id
INSERT INTO notes (title, stars) SELECT string4, ten FROM onek WHERE unique1 < {n}
INSERT INTO notes (title, stars) VALUES ({s}, {n}) ON CONFLICT (id) DO UPDATE SET stars = excluded.stars + {n}
INSERT INTO notes (title, stars) VALUES ({s}, {n}) ON CONFLICT DO NOTHING
INSERT INTO notes DEFAULT VALUES
UPDATE notes SET stars = stars + {n} WHERE id = {n}
UPDATE notes SET title = {s}, body = NULL WHERE id = {n} RETURNING title
UPDATE notes SET stars = t.ten FROM tenk1 t WHERE t.unique1 = notes.id AND t.hundred = {n}
DELETE FROM notes WHERE id = {n}
DELETE FROM notes USING onek WHERE onek.unique1 = notes.id AND onek.ten = {n}
SELECT "notes"."id", "notes"."title", "notes"."body", "notes"."stars" FROM "notes" WHERE "notes"."id" = {n} LIMIT 21
SELECT "notes"."id", "notes"."title" FROM "notes" WHERE ("notes"."stars" > {n} AND "notes"."title" LIKE {s}) ORDER BY "notes"."id" DESC
SELECT COUNT(*) AS "__count" FROM "notes" WHERE "notes"."title" = {s}
SELECT 1 AS "a" FROM "notes" WHERE "notes"."title" = {s} LIMIT 1
SELECT "notes"."title", COUNT("notes"."id") AS "n" FROM "notes" GROUP BY "notes"."title" HAVING COUNT("notes"."id") > {n}
SELECT "notes"."id" FROM "notes" INNER JOIN "onek" ON ("notes"."id" = "onek"."unique1") WHERE "onek"."string4" = {s}
SELECT "notes"."id" FROM "notes" WHERE UPPER("notes"."title"::text) LIKE UPPER({s})
SELECT "notes"."id" FROM "notes" WHERE "notes"."id" IN ({list})
SELECT "notes"."id" FROM "notes" WHERE NOT ("notes"."stars" = {n} AND "notes"."stars" IS NOT NULL)
SELECT "notes"."id" FROM "notes" WHERE "notes"."id" IN (SELECT U0."unique1" FROM "onek" U0 WHERE U0."ten" = {n})
SELECT (CASE WHEN "notes"."stars" > {n} THEN {s} ELSE {s} END) AS "grade" FROM "notes"
INSERT INTO "notes" ("title", "body", "stars") VALUES ({s}, {s}, {n}) RETURNING "notes"."id"
UPDATE "notes" SET "title" = {s}, "stars" = ("notes"."stars" + {n}) WHERE "notes"."id" = {n}
DELETE FROM "notes" WHERE "notes"."id" IN ({list})
SELECT "notes"."id" FROM "notes" WHERE "notes"."id" = {n} FOR UPDATE
SELECT notes.id, notes.title, notes.body, notes.stars FROM notes WHERE notes.title = {s}
SELECT notes.id AS notes_id, notes.title AS notes_title FROM notes WHERE notes.stars > {n} ORDER BY notes.id LIMIT {n}
SELECT count(*) AS count_1 FROM (SELECT notes.id AS notes_id FROM notes WHERE notes.stars = {n}) AS anon_1
SELECT anon_1.id FROM (SELECT notes.id AS id FROM notes ORDER BY notes.stars LIMIT {n}) AS anon_1 LEFT OUTER JOIN onek AS onek_1 ON anon_1.id = onek_1.unique1
SELECT notes.id FROM notes JOIN onek ON onek.unique1 = notes.id AND onek.ten = {n} WHERE notes.title ILIKE {s} ESCAPE '/'
SELECT EXISTS (SELECT 1 FROM notes WHERE notes.title = {s}) AS anon_1
SELECT coalesce(sum(notes.stars), {n}) AS total FROM notes
SELECT notes.id FROM notes WHERE notes.stars IS NULL OR notes.stars = {n}
SELECT notes.id FROM notes WHERE notes.id IN ({list}) ORDER BY notes.title
INSERT INTO notes (title, body, stars) VALUES ({s}, NULL, {n}) RETURNING notes.id
UPDATE notes SET stars=(notes.stars + {n}) WHERE notes.id = {n}
DELETE FROM notes WHERE notes.title = {s}
SELECT lower(notes.title) AS lower_1, count(notes.id) AS n FROM notes GROUP BY lower(notes.title) ORDER BY n DESC LIMIT {n}

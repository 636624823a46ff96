<?php
// PDO: statements prepared at the server and emulated, lastInsertId, COPY, notifications, persistent connections.

$schema = getenv('SCHEMA');
echo 'PDO ', phpversion('pdo_pgsql'), "\n";

function connect(array $options = []): PDO
{
    $dsn = sprintf('pgsql:host=%s;port=%s;dbname=%s', getenv('PGHOST'), getenv('PGPORT'), getenv('PGDATABASE'));
    return new PDO($dsn, getenv('PGUSER'), getenv('PGPASSWORD'), [PDO::ATTR_DEFAULT_FETCH_MODE => PDO::FETCH_NUM] + $options);
}

function step(string $title, callable $act): void
{
    echo "== $title\n";
    $act();
}

function show(mixed ...$values): void
{
    echo implode(' ', array_map('json_encode', $values)), "\n";
}

function fails(callable $act): void
{
    try {
        $act();
    } catch (PDOException $error) {
        [$code, , $message] = $error->errorInfo;
        show('error', $code, strtok($message, "\n"));
        return;
    }
    throw new Exception('an error was expected');
}

$db = connect();

step('lastInsertId in a transaction, with and without a sequence', function () use ($db) {
    $db->exec('CREATE TABLE items (id serial PRIMARY KEY, name text UNIQUE, raw bytea, active boolean)');
    $put = $db->prepare('INSERT INTO items (name) VALUES (?)');
    // The first that is asked for in a pool, so its values are kept apart from here on.
    fails(fn () => $db->lastInsertId());
    for ($n = 1; $n <= 5; $n++) {
        $db->beginTransaction();
        $put->execute(["item $n"]);
        show($db->lastInsertId(), $db->lastInsertId('items_id_seq'));
        $db->commit();
    }
    show($db->query("INSERT INTO items (name) VALUES ('returned') RETURNING id, name")->fetch());
});

step('parameters by name and type, bytes and booleans', function () use ($db) {
    $put = $db->prepare('UPDATE items SET raw = :raw, active = :active WHERE id = :id RETURNING raw, active, name');
    $put->bindValue('raw', "\0\1\xff", PDO::PARAM_LOB);
    $put->bindValue('active', true, PDO::PARAM_BOOL);
    $put->bindValue('id', 1, PDO::PARAM_INT);
    $put->execute();
    [$raw, $active, $name] = $put->fetch();
    show(bin2hex(stream_get_contents($raw)), $active, $name, $put->rowCount());
    show($db->query("SELECT 1.5::numeric, '{a,b}'::text[], 'it''s', null, 9007199254740993::bigint")->fetch());
});

step('statements prepared at the server, emulated, and sent at once', function () {
    foreach ([[], [PDO::ATTR_EMULATE_PREPARES => true], [PDO::PGSQL_ATTR_DISABLE_PREPARES => true]] as $options) {
        $own = connect($options);
        $add = $own->prepare('SELECT ?::int + ?::int');
        $sums = [];
        for ($n = 0; $n < 20; $n++) {
            $add->execute([$n, 1]);
            $sums[] = $add->fetchColumn();
        }
        show($sums);
        $kept = [];
        for ($n = 0; $n < 20; $n++) {
            $kept[] = $own->prepare("SELECT ?::int AS c$n");
        }
        foreach ($kept as $n => $statement) {
            $statement->execute([$n]);
        }
        show($kept[19]->fetch(PDO::FETCH_ASSOC));
    }
});

step('transactions, savepoints, and an error in one', function () use ($db) {
    $db->beginTransaction();
    $db->exec("INSERT INTO items (name) VALUES ('outer')");
    $db->exec('SAVEPOINT s');
    fails(fn () => $db->exec("INSERT INTO items (name) VALUES ('outer')"));
    fails(fn () => $db->query('SELECT 1'));
    $db->exec('ROLLBACK TO SAVEPOINT s');
    show($db->inTransaction());
    $db->commit();
    $db->beginTransaction();
    $db->exec('DELETE FROM items');
    $db->rollBack();
    show($db->inTransaction(), $db->query('SELECT count(*) FROM items')->fetchColumn());
});

step('a scrollable cursor', function () use ($db) {
    $db->exec('INSERT INTO items (name) SELECT n FROM generate_series(1, 500) n');
    $db->beginTransaction();
    $rows = $db->prepare('SELECT id FROM items ORDER BY id', [PDO::ATTR_CURSOR => PDO::CURSOR_SCROLL]);
    $rows->execute();
    show($rows->fetch(), $rows->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_LAST)[0] > 500, $rows->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_ABS, 3));
    $rows = null;
    $db->commit();
});

step('COPY from and to arrays, and one that fails', function () use ($db) {
    $db->exec('CREATE TABLE copied (a int, b text)');
    show($db->pgsqlCopyFromArray('copied', array_map(fn ($n) => "$n\trow $n", range(1, 5000))));
    $rows = $db->pgsqlCopyToArray('copied');
    show(count($rows), $rows[4999]);
    fails(fn () => $db->pgsqlCopyFromArray('copied', ["no number\tx"]));
    show($db->query('SELECT count(*), sum(a) FROM copied')->fetch());
});

step('large objects', function () use ($db) {
    $db->beginTransaction();
    $oid = $db->pgsqlLOBCreate();
    $stream = $db->pgsqlLOBOpen($oid, 'w');
    fwrite($stream, str_repeat('0123456789', 1000));
    fclose($stream);
    $db->commit();
    $db->beginTransaction();
    $stream = $db->pgsqlLOBOpen($oid, 'r');
    fseek($stream, 9995);
    show(fread($stream, 10));
    $db->pgsqlLOBUnlink($oid);
    $db->commit();
});

step('LISTEN and NOTIFY', function () use ($db, $schema) {
    $other = connect();
    $db->exec("LISTEN \"$schema news\"");
    $other->prepare('SELECT pg_notify(?, ?)')->execute(["$schema news", 'hello']);
    $notice = $db->pgsqlGetNotify(PDO::FETCH_ASSOC, 60000);
    show($notice['message'], $notice['payload']);
    $db->exec('UNLISTEN *');
});

step('settings, timeouts and temporary tables of a session', function () use ($db) {
    $own = connect();
    $own->exec("SET TIME ZONE 'Asia/Tokyo'; SET statement_timeout = '3s'");
    fails(fn () => $own->query('SELECT pg_sleep(60)'));
    show($own->query("SELECT '2024-01-01 00:00:00+00'::timestamptz::text, current_setting('statement_timeout')")->fetch());
    $own->exec('CREATE TEMPORARY TABLE mine AS SELECT generate_series(1, 4) n');
    show($own->query('SELECT sum(n) FROM mine')->fetch());
    $own = null;
    show($db->query("SELECT current_setting('statement_timeout'), to_regclass('mine')")->fetch());
});

step('persistent connections', function () {
    for ($n = 0; $n < 3; $n++) {
        $kept = connect([PDO::ATTR_PERSISTENT => true]);
        show($kept->query('SELECT current_schema(), pg_backend_pid() > 0')->fetch());
        $kept = null;
    }
});

step('a table grows under prepared statements', function () use ($db) {
    $db->exec('CREATE TABLE grows AS SELECT 1 AS a');
    $all = $db->prepare('SELECT * FROM grows');
    $all->execute();
    show($all->fetchAll());
    $db->exec('ALTER TABLE grows ADD b int DEFAULT 2');
    fails(fn () => $all->execute());
    show($db->query('SELECT * FROM grows')->fetchAll());
});

step('the pgsql extension: parameters, pipelines of queries, and notices', function () use ($schema) {
    $old = pg_connect(sprintf('host=%s port=%s dbname=%s user=%s password=%s', getenv('PGHOST'), getenv('PGPORT'), getenv('PGDATABASE'), getenv('PGUSER'), getenv('PGPASSWORD')));
    show(pg_fetch_row(pg_query_params($old, 'SELECT $1::int * 2, $2::text', [21, 'x'])));
    pg_prepare($old, 'by name', 'SELECT name FROM items WHERE id = $1');
    show(array_map(fn ($id) => pg_fetch_row(pg_execute($old, 'by name', [$id]))[0], range(1, 5)));
    pg_send_query($old, "SELECT 1; SELECT 2; DO \$\$ BEGIN RAISE NOTICE 'heard'; END \$\$; SELECT 1/0");
    while ($result = pg_get_result($old)) {
        show(pg_result_status($result, PGSQL_STATUS_STRING), pg_result_error_field($result, PGSQL_DIAG_SQLSTATE));
    }
    show(pg_last_notice($old), pg_copy_from($old, "copied", ["1\tx\n"]), pg_affected_rows(pg_query($old, "DELETE FROM copied WHERE b = 'x'")));
    show(pg_transaction_status($old) === PGSQL_TRANSACTION_IDLE, pg_close($old));
});

step('disconnect and connect again', function () use (&$db) {
    $db = null;
    $db = connect();
    show($db->query('SELECT current_schema(), count(*) FROM items')->fetch());
});

# DBD::Pg: prepared statements of the server, COPY, asynchronous queries, notifications, savepoints, large objects.

use strict;
use warnings;
use utf8;
use DBI qw(:sql_types);
use DBD::Pg qw(:pg_types :async);

$| = 1;
binmode(STDOUT, ':utf8');
my $schema = $ENV{SCHEMA};
print "DBD::Pg ", $DBD::Pg::VERSION, "\n";

sub connect_again {
    my %attributes = (RaiseError => 1, PrintError => 0, AutoCommit => 1, PrintWarn => 0, @_);
    return DBI->connect("dbi:Pg:dbname=$ENV{PGDATABASE};host=$ENV{PGHOST};port=$ENV{PGPORT}", undef, undef, \%attributes);
}

sub shown { my ($value) = @_; return !defined $value ? 'null' : ref $value ? '[' . join(', ', map { shown($_) } @$value) . ']' : $value }
sub show { print join(' ', map { shown($_) } @_), "\n" }

sub fails {
    my ($db, $act) = @_;
    eval { $act->(); 1 } and die 'an error was expected';
    show('error', $db->state, (split /\n/, $db->errstr)[0]);
}

my $db = connect_again();

sub step {
    my ($title, $act) = @_;
    print "== $title\n";
    $act->();
}

step 'last_insert_id and currval in a transaction, and RETURNING' => sub {
    $db->do('CREATE TABLE items (id serial PRIMARY KEY, name text UNIQUE, tags text[], raw bytea, price numeric(12, 2))');
    # The first that is asked for in a pool, so its values are kept apart from here on.
    fails($db, sub { $db->selectrow_array('SELECT lastval()') });
    for my $n (1 .. 5) {
        $db->begin_work;
        $db->do('INSERT INTO items (name) VALUES (?)', undef, "item $n");
        show($db->last_insert_id(undef, undef, 'items', undef), $db->selectrow_array("SELECT currval('items_id_seq')"), $db->selectrow_array('SELECT lastval()'));
        $db->commit;
    }
    show($db->selectrow_array("INSERT INTO items (name) VALUES ('returned') RETURNING id, name"));
};

step 'arrays, bytes, booleans and numbers' => sub {
    my $put = $db->prepare('UPDATE items SET tags = ?, raw = ?, price = ? WHERE id = ? RETURNING tags, raw, price');
    $put->bind_param(2, undef, { pg_type => PG_BYTEA });
    $put->execute(['a', 'b,c', undef, '"q"'], "\0\x01\xff", '12.50', 1);
    my ($tags, $raw, $price) = $put->fetchrow_array;
    show($tags, unpack('H*', $raw), $price);
    show($db->selectrow_array(q{SELECT true, 1.5::float8, '{{1,2},{3,4}}'::int[], 'Grüße'}));
};

step 'statements prepared at the server, at once and late' => sub {
    for my $options ({ pg_server_prepare => 1, pg_switch_prepared => 1 }, { pg_prepare_now => 1 }, { pg_server_prepare => 0 }) {
        my $add = $db->prepare('SELECT ?::int + ?::int', $options);
        show(join ' ', map { $db->selectrow_array($add, undef, $_, 1) } 1 .. 20);
    }
    my @kept = map { $db->prepare("SELECT name FROM items WHERE id > ? AND $_ = $_ ORDER BY id LIMIT 1") } 1 .. 20;
    show(join ' ', map { $db->selectrow_array($_, undef, 2) } @kept, reverse @kept);
};

step 'transactions, savepoints, and an error in one' => sub {
    $db->begin_work;
    $db->do("INSERT INTO items (name) VALUES ('outer')");
    $db->pg_savepoint('s');
    fails($db, sub { $db->do("INSERT INTO items (name) VALUES ('outer')") });
    fails($db, sub { $db->do('SELECT 1') });
    $db->pg_rollback_to('s');
    $db->pg_release('s');
    $db->commit;
    $db->{AutoCommit} = 0;
    $db->do('DELETE FROM items');
    $db->rollback;
    $db->{AutoCommit} = 1;
    show($db->selectrow_array('SELECT count(*) FROM items'), $db->ping, $db->state);
};

step 'a cursor, and many rows' => sub {
    $db->do('INSERT INTO items (name, price) SELECT n, n FROM generate_series(1, 2000) n');
    $db->begin_work;
    $db->do('DECLARE rows CURSOR WITH HOLD FOR SELECT price FROM items WHERE price > 20 ORDER BY id');
    $db->commit;
    show($db->selectcol_arrayref('FETCH 3 FROM rows'));
    show(scalar @{ $db->selectcol_arrayref('FETCH ALL FROM rows') });
    $db->do('CLOSE rows');
    my $tuples = $db->prepare('UPDATE items SET tags = ? WHERE id = ?')->execute_array({}, [map { ["t$_"] } 1 .. 5], [1 .. 5]);
    show($tuples, $db->selectcol_arrayref('SELECT tags[1] FROM items WHERE id <= 5 ORDER BY id'));
};

step 'COPY in, out, and one that fails' => sub {
    $db->do('CREATE TABLE copied (a int, b text)');
    $db->do('COPY copied FROM STDIN');
    $db->pg_putcopydata("$_\trow $_\n") for 1 .. 10_000;
    $db->pg_putcopyend;
    $db->do('COPY (SELECT * FROM copied ORDER BY a) TO STDOUT');
    my ($line, $bytes) = ('', 0);
    $bytes += length $line while $db->pg_getcopydata($line) >= 0;
    show($bytes);
    $db->do('COPY copied FROM STDIN');
    $db->pg_putcopydata("no number\tx\n");
    fails($db, sub { $db->pg_putcopyend or die });
    show($db->selectrow_array('SELECT count(*) FROM copied'));
};

step 'asynchronous queries, and their cancel' => sub {
    $db->do('SELECT 41 + 1', { pg_async => PG_ASYNC });
    show($db->pg_result);
    $db->begin_work;
    $db->do('SELECT 1');
    $db->do('SELECT pg_sleep(60)', { pg_async => PG_ASYNC });
    $db->pg_cancel;
    $db->rollback;
    show($db->selectrow_array('SELECT count(*) FROM copied'));
};

step 'LISTEN and NOTIFY' => sub {
    my $other = connect_again();
    $db->do(qq{LISTEN "$schema news"});
    $other->do(q{SELECT pg_notify(?, ?)}, undef, "$schema news", "number $_") for 1 .. 3;
    my @heard;
    while (@heard < 3) {
        while (my $notice = $db->pg_notifies) { push @heard, [$notice->[0], $notice->[2]] }
        next if @heard == 3;
        vec(my $bits = '', $db->{pg_socket}, 1) = 1;
        select($bits, undef, undef, 60) or die 'nothing was heard';
    }
    show(@heard);
    $db->do('UNLISTEN *');
    $other->disconnect;
};

step 'settings, timeouts and temporary tables of a session' => sub {
    my $own = connect_again();
    $own->do("SET TIME ZONE 'Asia/Tokyo'");
    $own->do("SET statement_timeout = '3s'");
    fails($own, sub { $own->do('SELECT pg_sleep(60)') });
    show($own->selectrow_array(q{SELECT '2024-01-01 00:00:00+00'::timestamptz::text, current_setting('statement_timeout')}));
    $own->do('CREATE TEMPORARY TABLE mine AS SELECT generate_series(1, 4) n');
    show($own->selectrow_array('SELECT sum(n) FROM mine'));
    $own->disconnect;
    show($db->selectrow_array(q{SELECT current_setting('statement_timeout'), to_regclass('mine')}));
};

step 'large objects' => sub {
    $db->begin_work;
    my $oid = $db->pg_lo_creat($db->{pg_INV_WRITE} | $db->{pg_INV_READ});
    my $handle = $db->pg_lo_open($oid, $db->{pg_INV_WRITE} | $db->{pg_INV_READ});
    show($db->pg_lo_write($handle, 'abcdef', 6), $db->pg_lo_lseek($handle, 2, 0), $db->pg_lo_tell($handle));
    show($db->selectrow_array("SELECT convert_from(lo_get(?), 'UTF8')", undef, $oid));
    $db->pg_lo_close($handle);
    $db->pg_lo_unlink($oid);
    $db->commit;
};

step 'the catalog, as DBI asks for it' => sub {
    show([map { $_->[3] } @{ $db->column_info(undef, $schema, 'items', undef)->fetchall_arrayref }]);
    show([$db->primary_key(undef, $schema, 'items')]);
};

step 'disconnect and connect again' => sub {
    $db->disconnect;
    $db = connect_again();
    show($db->selectrow_array('SELECT current_schema(), count(*) FROM items'));
    $db->disconnect;
};

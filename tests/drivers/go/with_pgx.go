// pgx and its pool: prepared and described statements, batches, COPY, notifications, savepoints, the wire below.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/ioutil"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgtype"
	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
)

var (
	ctx    = context.Background()
	url    = os.Getenv("DATABASE_URL")
	schema = os.Getenv("SCHEMA")
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func step(title string, act func()) {
	fmt.Println("==", title)
	act()
}

func fails(err error) {
	var said *pgconn.PgError
	if !errors.As(err, &said) {
		panic(fmt.Sprint("an error of Postgres was expected: ", err))
	}
	fmt.Println("error", said.Code, said.Severity, said.Message)
}

type querier interface {
	QueryRow(context.Context, string, ...interface{}) pgx.Row
}

func value(db querier, sql string, args ...interface{}) (got interface{}) {
	must(db.QueryRow(ctx, sql, args...).Scan(&got))
	return got
}

// version is the package's of Debian: the library does not know its own.
func version() string {
	status, err := ioutil.ReadFile("/var/lib/dpkg/status")
	must(err)
	_, rest, _ := strings.Cut(string(status), "Package: golang-github-jackc-pgx-v4-dev\n")
	_, rest, _ = strings.Cut(rest, "\nVersion: ")
	found, _, _ := strings.Cut(rest, "-")
	return found
}

func main() {
	fmt.Println("pgx", version())
	config, err := pgxpool.ParseConfig(url)
	must(err)
	config.MaxConns = 4
	pool, err := pgxpool.ConnectConfig(ctx, config)
	must(err)

	step("INSERT … RETURNING, and types in binary", func() {
		_, err := pool.Exec(ctx, "CREATE TABLE items (id bigserial PRIMARY KEY, name text UNIQUE, tags text[], extra jsonb, raw bytea, price numeric, at timestamptz)")
		must(err)
		var id int64
		at := time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)
		must(pool.QueryRow(ctx, "INSERT INTO items (name, tags, extra, raw, price, at) VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
			"one", []string{"a", "b,c"}, map[string]interface{}{"deep": []int{1}}, []byte{0, 255}, "12.50", at).Scan(&id))
		var tags []string
		var extra map[string]interface{}
		var raw []byte
		var price pgtype.Numeric
		var got time.Time
		must(pool.QueryRow(ctx, "SELECT tags, extra, raw, price, at FROM items WHERE id = $1", id).Scan(&tags, &extra, &raw, &price, &got))
		fmt.Println(id, tags, extra, raw, price.Int, price.Exp, got.Equal(at))
	})

	step("prepared statements from many goroutines", func() {
		var wait sync.WaitGroup
		sums := make([]int32, 40)
		for n := range sums {
			wait.Add(1)
			go func(n int) {
				defer wait.Done()
				must(pool.QueryRow(ctx, "SELECT $1::int + $2::int", n, 1).Scan(&sums[n]))
			}(n)
		}
		wait.Wait()
		fmt.Println(sums)
	})

	step("the modes of its statement cache", func() {
		for _, mode := range []string{"prepare", "describe"} {
			conn, err := pgx.Connect(ctx, url+"&statement_cache_mode="+mode+"&statement_cache_capacity=5")
			must(err)
			for n := 0; n < 24; n++ {
				sql := fmt.Sprintf("SELECT $1::int + %d", n%12)
				if got := value(conn, sql, 1); got != int32(n%12+1) {
					panic(fmt.Sprint(sql, got))
				}
			}
			fmt.Println(mode, value(conn, "SELECT $1::text", pgx.QuerySimpleProtocol(true), "it's"))
			must(conn.Close(ctx))
		}
	})

	step("a statement prepared by name", func() {
		conn, err := pgx.Connect(ctx, url)
		must(err)
		_, err = conn.Prepare(ctx, "named", "SELECT $1::text || '!'")
		must(err)
		for n := 0; n < 10; n++ {
			fmt.Print(value(conn, "named", fmt.Sprint(n)), " ")
		}
		fmt.Println()
		must(conn.Deallocate(ctx, "named"))
		_, err = conn.Prepare(ctx, "named", "SELECT 1")
		must(err)
		fmt.Println(value(conn, "named"))
		must(conn.Close(ctx))
	})

	step("batches, also one that fails", func() {
		batch := &pgx.Batch{}
		for n := 0; n < 50; n++ {
			batch.Queue("INSERT INTO items (name) VALUES ($1) RETURNING name", fmt.Sprint("batch ", n))
		}
		results := pool.SendBatch(ctx, batch)
		for n := 0; n < 50; n++ {
			var name string
			must(results.QueryRow().Scan(&name))
		}
		must(results.Close())
		batch = &pgx.Batch{}
		batch.Queue("INSERT INTO items (name) VALUES ('dropped')")
		batch.Queue("SELECT 1 / $1::int", 0)
		batch.Queue("SELECT 2")
		fails(pool.SendBatch(ctx, batch).Close())
		fmt.Println(value(pool, "SELECT count(*) FROM items"))
	})

	step("transactions with savepoints, and options", func() {
		must(pool.BeginFunc(ctx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "INSERT INTO items (name) VALUES ('outer')")
			must(err)
			fails(tx.BeginFunc(ctx, func(inner pgx.Tx) error {
				_, err := inner.Exec(ctx, "INSERT INTO items (name) VALUES ('outer')")
				return err
			}))
			return nil
		}))
		must(pool.BeginTxFunc(ctx, pgx.TxOptions{IsoLevel: pgx.Serializable, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
			fmt.Println(value(tx, "SHOW transaction_isolation"), value(tx, "SHOW transaction_read_only"))
			return nil
		}))
		fmt.Println(value(pool, "SELECT count(*) FROM items WHERE name = 'outer'"))
	})

	step("many transactions on one row", func() {
		var wait sync.WaitGroup
		for n := 0; n < 20; n++ {
			wait.Add(1)
			go func(n int) {
				defer wait.Done()
				must(pool.BeginFunc(ctx, func(tx pgx.Tx) error {
					_, err := tx.Exec(ctx, "UPDATE items SET price = price + $1 WHERE name = 'one'", n)
					return err
				}))
			}(n)
		}
		wait.Wait()
		fmt.Println(value(pool, "SELECT price::text FROM items WHERE name = 'one'"))
	})

	step("COPY in and out, in binary and text", func() {
		_, err := pool.Exec(ctx, "CREATE TABLE copied (a int, b text)")
		must(err)
		rows := make([][]interface{}, 10_000)
		for n := range rows {
			rows[n] = []interface{}{int32(n), fmt.Sprint("row ", n)}
		}
		fmt.Println(pool.CopyFrom(ctx, pgx.Identifier{"copied"}, []string{"a", "b"}, pgx.CopyFromRows(rows)))
		conn, err := pool.Acquire(ctx)
		must(err)
		defer conn.Release()
		var out strings.Builder
		tag, err := conn.Conn().PgConn().CopyTo(ctx, &out, "COPY copied TO STDOUT")
		fmt.Println(tag, err, out.Len())
		_, err = conn.Conn().PgConn().CopyFrom(ctx, strings.NewReader("no number\tx\n"), "COPY copied FROM STDIN")
		fails(err)
	})

	step("LISTEN and NOTIFY", func() {
		conn, err := pgx.Connect(ctx, url)
		must(err)
		_, err = conn.Exec(ctx, fmt.Sprintf("LISTEN %q", schema+" news"))
		must(err)
		_, err = pool.Exec(ctx, "SELECT pg_notify($1, $2)", schema+" news", "hello")
		must(err)
		notice, err := conn.WaitForNotification(ctx)
		must(err)
		fmt.Println(notice.Channel, notice.Payload)
		must(conn.Close(ctx))
	})

	step("a deadline of the context, and timeouts of the session", func() {
		soon, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		_, err := pool.Exec(soon, "SELECT pg_sleep(60)")
		fmt.Println(errors.Is(err, context.DeadlineExceeded))
		conn, err := pgx.Connect(ctx, url+"&statement_timeout=3000&application_name=own")
		must(err)
		_, err = conn.Exec(ctx, "SELECT pg_sleep(60)")
		fails(err)
		_, err = conn.Exec(ctx, "SET statement_timeout = '9s'")
		must(err)
		fmt.Println(value(conn, "SHOW statement_timeout"), value(conn, "SHOW application_name"), value(pool, "SHOW statement_timeout"))
		must(conn.Close(ctx))
	})

	step("a table grows under prepared statements", func() {
		conn, err := pgx.Connect(ctx, url)
		must(err)
		_, err = conn.Exec(ctx, "CREATE TABLE grows AS SELECT 1 AS a")
		must(err)
		count := func() int {
			rows, err := conn.Query(ctx, "SELECT * FROM grows")
			must(err)
			defer rows.Close()
			if !rows.Next() {
				fails(rows.Err())
				return 0
			}
			values, err := rows.Values()
			must(err)
			return len(values)
		}
		fmt.Println(count(), count())
		_, err = pool.Exec(ctx, "ALTER TABLE grows ADD b int DEFAULT 2")
		must(err)
		count()
		fmt.Println(count())
		must(conn.Close(ctx))
	})

	step("errors, and the pool goes on", func() {
		_, err := pool.Exec(ctx, "INSERT INTO items (name) VALUES ('one')")
		fails(err)
		_, err = pool.Exec(ctx, "SELECT * FROM missing")
		fails(err)
		_, err = pool.Exec(ctx, "SELECT $1::text::int", "no number")
		fails(err)
		fmt.Println(value(pool, "SELECT 1"))
	})

	step("disconnect and connect again", func() {
		pool.Close()
		conn, err := pgx.Connect(ctx, url)
		must(err)
		fmt.Println(value(conn, "SELECT current_schema()::text"))
		must(conn.Close(ctx))
	})
}

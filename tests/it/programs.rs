//! Real programs: each as its users use it, by itself at the server, then three at once through pgweir in transaction
//! mode over two backends. What they print must be the same.
//!
//! One more is a file in `tests/drivers`, a line in [`programs!`], and what it imports in `scripts/drivers`,
//! `scripts/install` or the pins beside the file. The file prints its name and version, then each step under a title
//! (`== a title`); `docs/PROGRAMS.md` is held to these.

use std::process::Command;

use futures_util::future::join_all;

use crate::drivers::{self, install};
use crate::support::{Endpoint, Postgres, hold_row, listed_files, proxy};

macro_rules! programs {
    ($($test:ident = $file:literal $($argument:literal)*;)*) => {
        $(#[tokio::test]
        async fn $test() {
            behaves_alike($file, &[$($argument),*]).await;
        })*

        /// The files of all programs.
        const FILES: &[&str] = &[$($file),*];
    };
}

programs! {
    activerecord = "ruby/with_activerecord.rb";
    celery = "python/jobs_with_celery.py";
    dbd_pg = "perl/with_dbd_pg.pl";
    django = "python/with_django.py";
    drizzle = "node/with_drizzle.js";
    knex = "node/with_knex.js";
    lib_pq = "go/with_pq.go";
    libpqxx = "cpp/with_libpqxx.cpp";
    pdo = "php/with_pdo.php";
    pg_boss = "node/jobs_with_pg_boss.js";
    pgjdbc = "java/WithJdbc.java" "prepareThreshold=5";
    pgjdbc_simple = "java/WithJdbc.java" "preferQueryMode=simple";
    pgjdbc_that_caches_everything = "java/WithJdbc.java" "preferQueryMode=extendedCacheEverything&prepareThreshold=1";
    pgx = "go/with_pgx.go";
    postgres_js = "node/with_postgres_js.js";
    prisma = "node/with_prisma.js";
    psql = "shell/with_psql.sh";
    psqlodbc = "odbc/with_psqlodbc.py";
    psycopg2 = "python/with_psycopg2.py";
    sequelize = "node/with_sequelize.js";
    sqlalchemy_with_asyncpg = "python/with_sqlalchemy_asyncio.py";
    sqlalchemy_with_psycopg = "python/with_sqlalchemy.py" "psycopg";
    sqlalchemy_with_psycopg2 = "python/with_sqlalchemy.py" "psycopg2";
    typeorm = "node/with_typeorm.js";
}

/// How many of a program there are at once, each in a schema of its own.
const COPIES: usize = 3;

/// What waits on a busy machine is not told so.
const QUIET: &str = "[admission]\nnotice_after = \"0s\"";

async fn behaves_alike(file: &str, arguments: &[&str]) {
    install();
    let program = || {
        let mut command = drivers::program(file);
        command.args(arguments);
        command
    };
    let postgres = Postgres::shared();
    postgres.role("app").await;
    let direct = postgres.endpoint(&schemas(&postgres.database().await, 1).await);
    let expected = transcript(&direct, 1, program()).await;
    print!("{expected}");

    let dbname = schemas(&postgres.database().await, COPIES).await;
    // All wait for two backends, on a machine that has more to do.
    let proxy = proxy().dbname(&dbname).mode("transaction").pool_size(2).wait_timeout("120s").toml(QUIET).start().await;
    let copies = join_all((1..=COPIES).map(|copy| transcript(&proxy, copy, program()))).await;
    for said in copies {
        if said != expected {
            let mut lines = expected.lines().zip(said.lines());
            let differs = lines.find(|(expected, said)| expected != said);
            panic!("through pgweir it differs at {differs:#?}:\n{said}");
        }
    }
    hold_page(file, &expected);
}

/// Makes the schemas of so many copies in a database; returns its name.
async fn schemas(dbname: &str, copies: usize) -> String {
    let admin = Postgres::shared().admin(dbname).await;
    for copy in 1..=copies {
        let sql = format!("CREATE SCHEMA {} AUTHORIZATION app", schema(copy));
        admin.batch_execute(&sql).await.expect("a schema");
    }
    dbname.to_owned()
}

fn schema(copy: usize) -> String {
    format!("client_{copy}")
}

/// What a copy prints, the same for each.
async fn transcript(at: &Endpoint, copy: usize, program: Command) -> String {
    at.run_in(&schema(copy), "app", program).await.replace(&schema(copy), "client")
}

/// A row of the page: the program, its version, and the titles of its steps.
fn hold_page(file: &str, transcript: &str) {
    let (name, version) = transcript.lines().next().and_then(|line| line.rsplit_once(' ')).expect("name and version");
    let steps: Vec<&str> = transcript.lines().filter_map(|line| line.strip_prefix("== ")).collect();
    assert!(steps.len() > 2, "{name} tries nothing");
    hold_row(name, version, file, &steps);
}

/// One that is not tried any more leaves the page.
#[test]
fn the_page_lists_programs_that_are_tried() {
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        return; // the other tests are writing it
    }
    let tried = FILES.iter().chain(drivers::FILES).map(|&file| file.to_owned());
    assert_eq!(listed_files(), tried.collect());
}

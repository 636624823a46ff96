//! What the server says about the sessions in one database: the only witness that cannot be fooled by the proxy.

use tokio_postgres::Client;

use super::{Postgres, eventually};

/// Sessions of one database, seen by the superuser from another.
pub(crate) struct Sessions {
    admin: Client,
    dbname: String,
}

impl Sessions {
    /// Those of `dbname`.
    pub(crate) async fn of(postgres: &Postgres, dbname: &str) -> Self {
        Self { admin: postgres.admin("postgres").await, dbname: dbname.to_owned() }
    }

    async fn ask(&self, what: &str, condition: &str) -> i64 {
        let sql = format!(
            "SELECT {what} FROM pg_stat_activity
             WHERE datname = '{}' AND backend_type = 'client backend' AND ({condition})",
            self.dbname
        );
        self.admin.query_one(&sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
    }

    /// How many there are for which `condition` on `pg_stat_activity` holds.
    pub(crate) async fn count(&self, condition: &str) -> i64 {
        self.ask("count(*)", condition).await
    }

    /// How many there are.
    pub(crate) async fn open(&self) -> i64 {
        self.count("true").await
    }

    /// How many run this very text now.
    pub(crate) async fn running(&self, sql: &str) -> i64 {
        self.count(&running(sql)).await
    }

    /// Process ids, in order.
    pub(crate) async fn pids(&self) -> Vec<i32> {
        let sql = format!(
            "SELECT pid FROM pg_stat_activity WHERE datname = '{}' AND backend_type = 'client backend' ORDER BY pid",
            self.dbname
        );
        self.admin.query(&sql, &[]).await.expect("pids").iter().map(|row| row.get(0)).collect()
    }

    /// Waits until so many run this very text.
    #[track_caller]
    pub(crate) fn until_running(&self, sql: &str, count: i64) -> impl Future<Output = ()> {
        self.until(running(sql), count)
    }

    /// Waits until the condition holds for so many.
    #[track_caller]
    pub(crate) fn until(&self, condition: impl Into<String>, count: i64) -> impl Future<Output = ()> {
        let condition = condition.into();
        eventually(move || {
            let condition = condition.clone();
            async move { self.count(&condition).await == count }
        })
    }

    /// Ends those for which the condition holds, and waits until they are gone; returns how many it were.
    pub(crate) async fn terminate(&self, condition: &str) -> i64 {
        let ended = self.ask("count(pg_terminate_backend(pid, 30000))", condition).await;
        self.until(condition, 0).await;
        ended
    }
}

fn running(sql: &str) -> String {
    format!("state = 'active' AND query = '{}'", sql.replace('\'', "''"))
}

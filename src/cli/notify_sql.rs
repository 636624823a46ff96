//! `pgweir notify-sql`: prints SQL for psql, and changes no database itself.
//!
//! A trigger or function that notifies does so where pgweir cannot see it. The schema it prints holds the functions
//! that tell pgweir; the query for callers finds who could call them and how: `ALTER FUNCTION … SET search_path` puts
//! `pgweir.pg_notify` in front of `pg_catalog.pg_notify`, and says by its order what it was before.

use clap::Args;

use super::Exit;

const BEGIN: &str = include_str!("notify_sql/begin.sql");
const SCHEMA: &str = include_str!("notify_sql/schema.sql");
const FUNCTION: &str = include_str!("notify_sql/function.sql");
const CALLERS: &str = include_str!("notify_sql/callers.sql");
const REMOVE: &str = include_str!("notify_sql/remove.sql");

const STOP: &str = "\\set ON_ERROR_STOP on\n";

/// What to print; without any of these the schema.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct NotifySql {
    /// List the functions that notify, and what adopts each: pgweir notify-sql --callers | psql.
    #[arg(long)]
    callers: bool,
    /// Adopt every function that can be.
    #[arg(long)]
    adopt: bool,
    /// Give adopted functions back the search_path they had.
    #[arg(long)]
    undo: bool,
    /// Drop the schema, unless functions still name it.
    #[arg(long)]
    remove: bool,
}

/// Prints it.
pub(super) fn notify_sql(wanted: &NotifySql) -> Exit {
    let sql = match wanted {
        NotifySql { callers: true, .. } => format!("{BEGIN}{CALLERS};\nCOMMIT;\n"),
        NotifySql { adopt: true, .. } => {
            // Fails without it: a path that names no such schema would adopt nothing.
            let there = "SELECT 'pgweir.pg_notify(text,text)'::regprocedure AS adopts;\n";
            format!("{STOP}{BEGIN}{there}{}", each("adopt", "can be adopted"))
        }
        NotifySql { undo: true, .. } => format!("{STOP}{BEGIN}{}", each("undo", "adopted")),
        NotifySql { remove: true, .. } => format!("{STOP}{BEGIN}{}", REMOVE.replace("{callers}", CALLERS)),
        NotifySql { .. } => schema(),
    };
    print!("{sql}");
    Exit::Done
}

fn schema() -> String {
    let function = |name| FUNCTION.replace("{name}", name);
    let grant = "GRANT USAGE ON SCHEMA pgweir TO PUBLIC;\nCOMMIT;\n";
    format!("{SCHEMA}{}{}{grant}", function("notify"), function("pg_notify"))
}

/// Shows one column of callers in this state, then runs what it says.
fn each(column: &str, state: &str) -> String {
    format!(
        "SELECT DISTINCT {column} FROM (\n{CALLERS}) AS c WHERE state = '{state}' AND {column} IS NOT NULL;\n\\gexec\nCOMMIT;\n"
    )
}

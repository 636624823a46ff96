//! The translation of the old file, setting by setting.

use std::net::IpAddr;
use std::path::Path;

use super::roles::{self, Logins};
use super::toml::{Table, TomlValue, inline, list, plain, text, texts};
use super::translation::{Translation, Words, integer, names, seconds};
use super::{Files, Import, Kind};
use crate::config::CONSOLE_NAMES;

const HEAD: &str = "\
# Made of PgBouncer's {file} by pgweir import; docs/FROM_PGBOUNCER.md says what became of each key.
# It may hold passwords: let nobody but pgweir read it. Then: pgweir check proxy.toml
";

/// Waiting for ever is not offered.
const WAIT_MAX: &str = "1d";

impl Translation {
    pub(super) fn run(mut self, path: &Path, files: Files<'_>) -> Import {
        let logins = roles::logins(&mut self, files);
        let mut tables = vec![self.listen(), self.admin(&logins), self.pool()];
        tables.extend(self.databases_of(&logins));
        tables.extend(logins.tables);
        tables.push(self.admission());
        let mut toml = HEAD.replace("{file}", &path.file_name().unwrap_or_default().to_string_lossy());
        tables.iter().filter(|table| !table.is_empty()).for_each(|table| table.write(&mut toml));
        self.notes.sort_by(|a, b| (&a.place, a.kind, &a.about).cmp(&(&b.place, b.kind, &b.about)));
        Import { toml, notes: self.notes, unneeded: self.unneeded.into_iter().collect() }
    }

    fn listen(&mut self) -> Table {
        let mut table = Table::new("listen");
        let addr = self.addresses();
        if addr.is_empty() {
            self.note_on("listen_addr", Kind::Missing, "no address is left to listen on; 127.0.0.1:6432 it is");
        } else {
            table.line("addr", &list(&addr), "listen_addr, listen_port, unix_socket_dir");
        }
        if self.is_on("so_reuseport") {
            table.line("reuse_port", &plain(true), "so_reuseport");
        }
        self.number(&mut table, "clients_max", "max_client_conn");
        self.seconds(&mut table, "login_timeout", "client_login_timeout", None);
        self.seconds(&mut table, "idle_timeout", "client_idle_timeout", Some("0s"));
        if self.is_on("application_name_add_host") {
            table.line("application_name_address", &plain(true), "application_name_add_host");
        }
        if let Some(tls) = self.client_tls() {
            table.line("tls", &tls, "client_tls_*");
        }
        table
    }

    fn addresses(&mut self) -> Vec<String> {
        let port = self.value("listen_port").to_owned();
        let mut addresses = Vec::new();
        for host in names(self.value("listen_addr")) {
            match host.as_str() {
                "*" => {
                    let text = "written as 0.0.0.0, which is IPv4; for IPv6 as well write \"[::]:port\" in its place";
                    self.note_on("listen_addr", Kind::Different, text);
                    addresses.push(format!("0.0.0.0:{port}"));
                }
                "localhost" => addresses.push(format!("127.0.0.1:{port}")),
                host => match host.parse::<IpAddr>() {
                    Ok(IpAddr::V6(ip)) => addresses.push(format!("[{ip}]:{port}")),
                    Ok(IpAddr::V4(ip)) => addresses.push(format!("{ip}:{port}")),
                    Err(_) => {
                        let text = format!("listen.addr takes no names; put the addresses of {host:?} there");
                        self.note_on("listen_addr", Kind::Unsafe, &text);
                    }
                },
            }
        }
        match self.value("unix_socket_dir") {
            "" => {}
            dir if dir.starts_with('@') => {
                self.note_on("unix_socket_dir", Kind::Missing, "there are no sockets in the abstract namespace");
            }
            dir => addresses.push(format!("unix:{}/.s.PGSQL.{port}", dir.trim_end_matches('/'))),
        }
        addresses
    }

    fn client_tls(&mut self) -> Option<TomlValue> {
        let asked = self.value("client_tls_sslmode").to_ascii_lowercase();
        let mode = match asked.as_str() {
            "disable" => return None,
            "allow" | "prefer" => "allow",
            "verify-ca" | "verify-full" => "verify-client",
            _ => "require",
        };
        let mut pairs = vec![("mode", text(mode))];
        for (name, key) in [("cert", "client_tls_cert_file"), ("key", "client_tls_key_file")] {
            pairs.extend(self.file(key).map(|file| (name, file)));
        }
        if mode == "verify-client" {
            pairs.extend(self.file("client_tls_ca_file").map(|file| ("client_ca", file)));
        }
        Some(inline(&pairs))
    }

    /// A file the result names; a path that is not absolute begins elsewhere now.
    fn file(&mut self, key: &str) -> Option<TomlValue> {
        let file = self.given(key)?.to_owned();
        if !file.starts_with('/') {
            let text = "is relative to the directory of proxy.toml now, not to where the program was started";
            self.note_on(key, Kind::Different, text);
        }
        Some(text(&file))
    }

    fn admin(&mut self, logins: &Logins) -> Table {
        let mut table = Table::new("admin");
        for (key, users) in [("roles", "admin_users"), ("stats_roles", "stats_users")] {
            let wanted: Vec<String> = names(self.given(users).unwrap_or_default());
            let (can, cannot): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|name| logins.may_use_console(name));
            for name in cannot {
                let about = format!("{users}: {name}");
                let place = self.place(users);
                let text = format!(
                    "cannot use the console without a password of its own; add [roles.…] with one, and the name to admin.{key}"
                );
                self.note(place.as_ref(), Kind::Missing, &about, &text);
            }
            if !can.is_empty() {
                table.line(key, &list(&can), users);
            }
        }
        table
    }

    fn pool(&mut self) -> Table {
        let mut table = Table::new("pool");
        let mode = self.value("pool_mode").to_ascii_lowercase();
        table.line("mode", &text(&mode), &self.why("pool_mode"));
        if self.given("server_reset_query_always").is_some_and(|value| value != "0") {
            table.line("reset", &text("always"), "server_reset_query_always");
        }
        match (integer(self.value("default_pool_size")), self.reserve(None)) {
            (Some(size), reserve) if size > 0 && reserve > 0 => {
                table.line("size", &plain(size.saturating_add(reserve)), "default_pool_size + reserve_pool_size");
            }
            _ if self.given("default_pool_size").is_some() => self.number(&mut table, "size", "default_pool_size"),
            _ => {}
        }
        if self.given("min_pool_size").is_some_and(|value| value != "0") {
            self.number(&mut table, "idle_min", "min_pool_size");
        }
        self.seconds(&mut table, "wait_timeout", "query_wait_timeout", Some(WAIT_MAX));
        if self.given("max_prepared_statements").is_some_and(|value| value != "0") {
            self.number(&mut table, "statements_max", "max_prepared_statements");
        }
        self.seconds(&mut table, "idle_timeout", "server_idle_timeout", Some("0s"));
        self.seconds(&mut table, "lifetime", "server_lifetime", Some("1s"));
        self.seconds(&mut table, "connect_timeout", "server_connect_timeout", None);
        table
    }

    fn admission(&mut self) -> Table {
        let mut table = Table::new("admission");
        self.seconds(&mut table, "notice_after", "query_wait_notify", Some("0s"));
        table
    }

    /// A general number, if it is given or PgBouncer's default differs.
    fn number(&mut self, table: &mut Table, setting: &str, key: &str) {
        match integer(self.value(key)) {
            Some(number) if number > 0 => table.line(setting, &plain(number), &self.why(key)),
            _ if self.value(key).is_empty() => {}
            _ => self.note_on(key, Kind::Different, "is no number above zero; pgweir's default holds"),
        }
    }

    /// A general time, if it is given or PgBouncer's default differs; `zero` is what 0 means there, `None`: nothing.
    fn seconds(&mut self, table: &mut Table, setting: &str, key: &str, zero: Option<&str>) {
        match (seconds(self.value(key)), zero) {
            (Some(duration), Some(zero)) if duration == "0s" => {
                table.line(setting, &text(zero), &self.why(key));
                if zero != "0s" {
                    self.note_on(
                        key,
                        Kind::Different,
                        &format!("0 has no equivalent; {setting} = {zero:?} comes near"),
                    );
                }
            }
            (Some(duration), None) if duration == "0s" => {
                self.note_on(key, Kind::Different, "cannot be without limit; pgweir's default holds");
            }
            (Some(duration), _) => table.line(setting, &text(&duration), &self.why(key)),
            (None, _) if self.value(key).is_empty() => {}
            (None, _) => self.note_on(key, Kind::Different, "is no number of seconds; pgweir's default holds"),
        }
    }

    fn databases_of(&mut self, logins: &Logins) -> Vec<Table> {
        let databases = std::mem::take(&mut self.databases);
        let tables = databases.iter().filter_map(|database| self.database(database, logins)).collect();
        if databases.is_empty() {
            self.note(None, Kind::Missing, "[databases]", "is empty; pgweir needs one at least");
        }
        tables
    }

    fn database(&mut self, database: &Words, logins: &Logins) -> Option<Table> {
        let name = &database.name;
        if CONSOLE_NAMES.contains(&name.as_str()) {
            self.note(
                Some(&database.place),
                Kind::Missing,
                name,
                "is the name of the console; the database needs another",
            );
            return None;
        }
        let mut table = Table::of("databases", name);
        table.line(
            "host",
            &texts(&self.hosts(database)?),
            if database.get("host").is_none() { "unix_socket_dir" } else { "" },
        );
        self.own_number(&mut table, database, "port", "port");
        self.size(&mut table, database);
        if let Some(dbname) = database.get("dbname") {
            table.line("dbname", &text(dbname), "");
        }
        if let Some((user, password)) = logins.forced(database) {
            table.line("login_as", &text(user), "user");
            password.into_iter().for_each(|password| table.line("password", &text(password), ""));
        }
        if let Some(mode) = database.get("pool_mode") {
            table.line("mode", &text(&mode.to_ascii_lowercase()), "pool_mode");
        }
        self.bound(&mut table, database);
        for (setting, key, zero) in
            [("wait_timeout", "query_wait_timeout", WAIT_MAX), ("lifetime", "server_lifetime", "1s")]
        {
            match database.get(key).map(seconds) {
                Some(Some(duration)) if duration == "0s" => table.line(setting, &text(zero), key),
                Some(Some(duration)) => table.line(setting, &text(&duration), key),
                Some(None) | None => {}
            }
        }
        let server_role = match database.get("target_session_attrs") {
            Some("read-write" | "primary") => Some("primary"),
            Some("read-only" | "standby") => Some("standby"),
            _ => None,
        };
        if let Some(server_role) = server_role {
            table.line("server_role", &text(server_role), "target_session_attrs");
        }
        if let Some(tls) = self.server_tls() {
            table.line("tls", &tls, "server_tls_*");
        }
        if let Some(lookup) = logins.lookup(database) {
            table.line("auth_query", &lookup, "auth_user, auth_query");
        }
        Some(table)
    }

    fn hosts(&mut self, database: &Words) -> Option<Vec<String>> {
        let socket_dir = self.value("unix_socket_dir").to_owned();
        let given = database.get("host").unwrap_or(&socket_dir);
        let hosts: Vec<String> = given.split(',').map(|host| host.trim().to_owned()).collect();
        if hosts.iter().any(|host| host.is_empty() || host.starts_with('@')) {
            let text = "has no host that pgweir can reach (there are no sockets in the abstract namespace); left out";
            self.note(Some(&database.place), Kind::Missing, &database.name, text);
            return None;
        }
        if hosts.len() > 1 && database.get("load_balance_hosts").is_none() {
            let about = format!("{}: host", database.name);
            let text = "a list is tried in its order, not in turn; with server_role = \"primary\" it finds the primary";
            self.note(Some(&database.place), Kind::Different, &about, text);
        }
        Some(hosts)
    }

    fn own_number(&mut self, table: &mut Table, words: &Words, setting: &str, key: &str) {
        match words.get(key).map(str::parse::<i64>) {
            Some(Ok(number)) if number > 0 => {
                table.line(setting, &plain(number), if setting == key { "" } else { key });
            }
            // PgBouncer: not set.
            Some(Ok(-1)) | None => {}
            Some(_) => {
                let about = format!("{}: {key}", words.name);
                self.note(Some(&words.place), Kind::Different, &about, "is no number above zero; left out");
            }
        }
    }

    /// Backends that PgBouncer opens beyond the size of a pool, for clients that have waited long enough.
    fn reserve(&self, database: Option<&Words>) -> u32 {
        if self.given("reserve_pool_timeout").and_then(seconds).is_some_and(|timeout| timeout == "0s") {
            return 0;
        }
        let own = database.and_then(own_reserve);
        integer(own.unwrap_or_else(|| self.value("reserve_pool_size"))).unwrap_or(0)
    }

    /// Backends of a pool, at most and at least, if the database has numbers of its own.
    fn size(&mut self, table: &mut Table, database: &Words) {
        let reserve = self.reserve(Some(database));
        let own = database.get("pool_size").and_then(integer).filter(|size| *size > 0);
        let size = own.or_else(|| integer(self.value("default_pool_size"))).filter(|size| *size > 0);
        match size.filter(|_| own.is_some() && reserve > 0 || own_reserve(database).is_some()) {
            Some(size) => table.line("size", &plain(size.saturating_add(reserve)), "pool_size + reserve_pool_size"),
            None => self.own_number(table, database, "size", "pool_size"),
        }
        match database.get("min_pool_size").and_then(integer) {
            Some(least) => table.line("idle_min", &plain(least), "min_pool_size"),
            None => self.own_number(table, database, "idle_min", "min_pool_size"),
        }
    }

    /// Backends over all roles. With a forced user PgBouncer has one pool for all of them.
    fn bound(&mut self, table: &mut Table, database: &Words) {
        let number = |text: &str| integer(text).filter(|number| *number > 0);
        let bound = number(database.get("max_db_connections").unwrap_or_else(|| self.value("max_db_connections")));
        let size = number(database.get("pool_size").unwrap_or_else(|| self.value("default_pool_size")));
        let size = size.map(|size| size.saturating_add(self.reserve(Some(database))));
        match (database.get("user"), bound, size) {
            (Some(_), bound, Some(size)) => {
                table.line(
                    "backends_max",
                    &plain(bound.unwrap_or(size).min(size)),
                    "one pool for all roles, because of user=",
                );
            }
            (_, Some(bound), _) => table.line("backends_max", &plain(bound), "max_db_connections"),
            _ => {}
        }
        let clients = database.get("max_db_client_connections");
        let clients = number(clients.unwrap_or_else(|| self.value("max_db_client_connections")));
        if let Some(clients) = clients {
            table.line("clients_max", &plain(clients), "max_db_client_connections");
        }
    }

    fn server_tls(&mut self) -> Option<TomlValue> {
        let asked = self.value("server_tls_sslmode").to_ascii_lowercase();
        let mode = if asked == "allow" { "prefer" } else { &asked };
        let mut pairs = vec![("mode", text(mode))];
        if mode.starts_with("verify-") {
            pairs.extend(self.file("server_tls_ca_file").map(|file| ("ca", file)));
        }
        for (name, key) in [("cert", "server_tls_cert_file"), ("key", "server_tls_key_file")] {
            pairs.extend(self.file(key).map(|file| (name, file)));
        }
        let is_default = mode == "prefer" && pairs.len() == 1;
        (!is_default).then(|| inline(&pairs))
    }
}

/// The reserve of a database, by its present and its former name.
fn own_reserve(database: &Words) -> Option<&str> {
    database.get("reserve_pool_size").or_else(|| database.get("reserve_pool"))
}

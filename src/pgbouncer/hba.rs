//! The HBA file of PgBouncer: who may come from where, to which databases, and with what proof. Pure.
//!
//! PgBouncer goes by the first line that fits. Here each role has networks, databases and one proof. [`HbaFile::rules`]
//! says what the lines about a role are in these words, or which line cannot be said so.

use std::net::IpAddr;

use ipnet::IpNet;

/// What a line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HbaMethod {
    Password,
    Scram,
    Trust,
    Certificate,
    Reject,
}

/// Databases or users of a line; `None` is all of them.
type ListedNames = Option<Vec<String>>;

/// A line that says something.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HbaLine {
    number: usize,
    databases: ListedNames,
    users: ListedNames,
    /// As `roles.*.from` has them.
    from: Vec<String>,
    needs_tls: bool,
    method: HbaMethod,
}

/// A line that cannot be said here, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unsayable {
    pub(super) line: usize,
    pub(super) why: String,
}

/// What the lines of one role come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HbaRules {
    /// From everywhere, if it is empty.
    pub(super) from: Vec<String>,
    pub(super) databases: ListedNames,
    pub(super) method: HbaMethod,
}

/// A file that was read.
#[derive(Debug, Default)]
pub(super) struct HbaFile {
    lines: Vec<HbaLine>,
}

const EVERYWHERE: [&str; 2] = ["0.0.0.0/0", "::/0"];
const UNIX: &str = "unix";

impl HbaFile {
    /// Reads a file, and says which of its lines mean nothing here.
    pub(super) fn read(text: &str) -> (Self, Vec<Unsayable>) {
        let (mut lines, mut unsayable) = (Vec::new(), Vec::new());
        for (at, line) in text.lines().enumerate() {
            match read_line(at + 1, &fields(line)) {
                Ok(line) => lines.extend(line),
                Err(why) => unsayable.push(Unsayable { line: at + 1, why }),
            }
        }
        (Self { lines }, unsayable)
    }

    /// The first line that asks for TLS.
    pub(super) fn needs_tls(&self) -> Option<usize> {
        self.lines.iter().find(|line| line.needs_tls && line.method != HbaMethod::Reject).map(|line| line.number)
    }

    /// Users that a line names, with its number.
    pub(super) fn users(&self) -> impl Iterator<Item = (usize, &str)> {
        let of_line = |line: &HbaLine| line.number;
        self.lines
            .iter()
            .flat_map(move |line| line.users.iter().flatten().map(move |user| (of_line(line), user.as_str())))
    }

    /// The rules of a role, or of all that no line names (`None`). No rules: it may not come in.
    pub(super) fn rules(&self, role: Option<&str>) -> Result<Option<HbaRules>, Unsayable> {
        let is_meant = |line: &&HbaLine| match (&line.users, role) {
            (None, _) => true,
            (Some(users), Some(role)) => users.iter().any(|user| user == role),
            (Some(_), None) => false,
        };
        let mut lines: Vec<&HbaLine> = self.lines.iter().filter(is_meant).collect();
        // Who is on no line is refused, too.
        while lines.last().is_some_and(|line| line.method == HbaMethod::Reject) {
            lines.pop();
        }
        let Some(first) = lines.first() else { return Ok(None) };
        let mut from: Vec<String> = Vec::new();
        for line in &lines {
            let other = |what: &str| Unsayable {
                line: line.number,
                why: format!("has {what} than line {}, and a role has one for all its networks", first.number),
            };
            if line.method == HbaMethod::Reject {
                let why = "refuses what a later line may let in; a role has networks and databases, without exceptions";
                return Err(Unsayable { line: line.number, why: why.to_owned() });
            }
            if line.databases != first.databases {
                return Err(other("other databases"));
            }
            if line.method != first.method {
                return Err(other("another method"));
            }
            let new: Vec<_> = line.from.iter().filter(|source| !from.contains(source)).cloned().collect();
            from.extend(new);
        }
        if [UNIX].iter().chain(&EVERYWHERE).all(|all| from.iter().any(|source| source == all)) {
            from.clear();
        }
        Ok(Some(HbaRules { from, databases: first.databases.clone(), method: first.method }))
    }
}

/// One word of a field. A quoted word is no keyword.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HbaWord {
    text: String,
    is_quoted: bool,
}

/// Fields stand between blanks, the words of one between commas; `#` begins a comment.
fn fields(line: &str) -> Vec<Vec<HbaWord>> {
    let mut fields: Vec<Vec<HbaWord>> = Vec::new();
    let (mut word, mut has_comma) = (None::<HbaWord>, false);
    let mut is_inside = false;
    for c in line.chars().chain([' ']) {
        let blank = HbaWord { text: String::new(), is_quoted: false };
        match c {
            '"' => {
                is_inside = !is_inside;
                word.get_or_insert(blank).is_quoted = true;
            }
            _ if is_inside => word.get_or_insert(blank).text.push(c),
            '#' | ',' | ' ' | '\t' | '\r' => {
                if let Some(word) = word.take() {
                    match fields.last_mut().filter(|_| has_comma) {
                        Some(field) => field.push(word),
                        None => fields.push(vec![word]),
                    }
                    has_comma = false;
                }
                has_comma |= c == ',';
                if c == '#' {
                    break;
                }
            }
            _ => word.get_or_insert(blank).text.push(c),
        }
    }
    fields
}

fn read_line(number: usize, fields: &[Vec<HbaWord>]) -> Result<Option<HbaLine>, String> {
    let Some((kind, rest)) = fields.split_first() else { return Ok(None) };
    let [databases, users, rest @ ..] = rest else { return Err("is cut off".to_owned()) };
    let kind = kind[0].text.as_str();
    let (from, rest) = match kind {
        "local" => (vec![UNIX.to_owned()], rest),
        "host" | "hostssl" => addresses(rest)?,
        _ => return Err(format!("{kind}: there is no such condition on a connection")),
    };
    let Some((method, options)) = rest.split_first() else { return Err("is cut off".to_owned()) };
    if let Some(option) = options.first() {
        return Err(format!("{}: methods have no options", option[0].text));
    }
    let method = match method[0].text.as_str() {
        "trust" => HbaMethod::Trust,
        "reject" => HbaMethod::Reject,
        "md5" | "password" | "plain" => HbaMethod::Password,
        "scram-sha-256" => HbaMethod::Scram,
        "cert" => HbaMethod::Certificate,
        other => return Err(format!("there is no method {other}")),
    };
    let (databases, users) =
        (named(databases, &["sameuser", "samerole", "samegroup", "replication"])?, named(users, &[])?);
    let needs_tls = kind == "hostssl";
    Ok(Some(HbaLine { number, databases, users, from, needs_tls, method }))
}

fn named(words: &[HbaWord], keywords: &[&str]) -> Result<ListedNames, String> {
    let mut names = Vec::new();
    for word in words {
        let is_special = keywords.contains(&word.text.as_str()) || word.text.starts_with(['@', '+', '/']);
        match word.text.as_str() {
            "all" if !word.is_quoted => return Ok(None),
            special if !word.is_quoted && is_special => return Err(format!("{special}: only names can be listed")),
            name => names.push(name.to_owned()),
        }
    }
    names.sort();
    names.dedup();
    Ok(Some(names))
}

/// The address of a line, and what follows it.
fn addresses(fields: &[Vec<HbaWord>]) -> Result<(Vec<String>, &[Vec<HbaWord>]), String> {
    let Some((address, rest)) = fields.split_first() else { return Err("is cut off".to_owned()) };
    let address = address[0].text.as_str();
    if address == "all" {
        return Ok((EVERYWHERE.map(str::to_owned).into(), rest));
    }
    let network = |network: IpNet| vec![network.trunc().to_string()];
    if let Ok(net) = address.parse::<IpNet>() {
        return Ok((network(net), rest));
    }
    let unknown = || format!("{address}: only addresses of networks can be listed");
    let ip: IpAddr = address.parse().map_err(|_| unknown())?;
    let (mask, rest) = rest.split_first().ok_or_else(unknown)?;
    let mask: IpAddr = mask[0].text.parse().map_err(|_| unknown())?;
    let net = IpNet::with_netmask(ip, mask).map_err(|_| unknown())?;
    Ok((network(net), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> HbaFile {
        let (file, unsayable) = HbaFile::read(text);
        assert_eq!(unsayable, [], "{text}");
        file
    }

    fn rules(text: &str, role: Option<&str>) -> Result<Option<HbaRules>, usize> {
        read(text).rules(role).map_err(|unsayable| unsayable.line)
    }

    fn allowed(from: &[&str], databases: Option<&[&str]>, method: HbaMethod) -> HbaRules {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        HbaRules { from: owned(from), databases: databases.map(owned), method }
    }

    #[test]
    fn lines_of_a_role_become_its_networks_databases_and_proof() {
        let text = "# who\nlocal all all trust # here\nhost app,\"all\" web, \"jobs\" 10.1.2.3/8 md5\n\
                    host app,\"all\" web 192.168.1.0 255.255.255.0 md5\nhost all all all reject\n";
        let web = rules(
            "host \"all\",app web 10.1.2.3/8 md5\nhost app,\"all\" web,x 192.168.1.0 255.255.255.0 md5",
            Some("web"),
        );
        let of_web = allowed(&["10.0.0.0/8", "192.168.1.0/24"], Some(&["all", "app"]), HbaMethod::Password);
        assert_eq!(web, Ok(Some(of_web)));
        assert_eq!(rules(text, None), Ok(Some(allowed(&["unix"], None, HbaMethod::Trust))));
        assert_eq!(rules(text, Some("web")), Err(3), "trust there, a password here");
        let everywhere = "local all all scram-sha-256\nhost all all all scram-sha-256";
        assert_eq!(rules(everywhere, Some("x")), Ok(Some(allowed(&[], None, HbaMethod::Scram))));
    }

    #[test]
    fn who_is_on_no_line_or_refused_on_the_last_may_not_come() {
        assert_eq!(rules("", Some("web")), Ok(None));
        assert_eq!(rules("host all jobs 10.0.0.0/8 md5\nhost all all 0.0.0.0/0 reject", Some("web")), Ok(None));
    }

    #[test]
    fn what_cannot_be_said_is_told_with_its_line() {
        let lines = "host all web 10.0.0.5/32 reject\nhost all web 10.0.0.0/8 md5";
        assert_eq!(rules(lines, Some("web")), Err(1));
        assert_eq!(rules(lines, Some("jobs")), Ok(None));
        assert_eq!(rules("host a web 10.0.0.0/8 md5\nhost b web 11.0.0.0/8 md5", Some("web")), Err(2));
        for line in [
            "hostnossl all all 0.0.0.0/0 md5",
            "host all all 10.0.0.0/8 ldap",
            "host all all samenet md5",
            "host all all example.com md5",
            "host all all 10.0.0.1 md5",
            "host sameuser all 10.0.0.0/8 md5",
            "host all +group 10.0.0.0/8 md5",
            "host all @file 10.0.0.0/8 md5",
            "host all all 10.0.0.0/8 cert map=people",
            "host all all 10.0.0.0/8",
            "host all",
            "local all all peer",
        ] {
            let (file, unsayable) = HbaFile::read(&format!("\n{line}\n"));
            assert_eq!((file.lines.len(), unsayable.len(), unsayable[0].line), (0, 1, 2), "{line}");
        }
        assert_eq!(read("host all all all md5\nhostssl all all all md5").needs_tls(), Some(2));
    }
}

//! `pgweir man`: the manual page, made of the command line's own help; one page, its commands as sections.

use std::io::{self, Write};

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::{Cli, Exit};

/// What clap does not know.
const REST: &str = "\
.SH FILES
.TP
.I proxy.toml
The configuration. It is read again when it changes, and on SIGHUP; a file with a mistake changes nothing.
.SH SIGNALS
.TP
.B SIGHUP
reads the configuration again.
.TP
.B SIGTERM, SIGINT
let transactions end, then the process; a second one ends it at once.
.SH EXIT STATUS
.TP
.B 0
All went well.
.TP
.B 1
The command line, its input or the configuration is wrong.
.TP
.B 2
An address cannot be listened on, or the process cannot start.
";

/// Prints the page.
pub(super) fn man() -> Exit {
    match page(Cli::command()).and_then(|page| io::stdout().write_all(&page)) {
        Ok(()) => Exit::Done,
        Err(error) => {
            eprintln!("cannot print the manual page: {error}");
            Exit::BadInput
        }
    }
}

fn page(mut command: Command) -> io::Result<Vec<u8>> {
    command.build();
    let mut page = Vec::new();
    let man = Man::new(command.clone());
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    writeln!(page, ".SH COMMANDS")?;
    for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
        let mut section = Vec::new();
        writeln!(section, ".SH pgweir {}", subcommand.get_name())?;
        let man = Man::new(subcommand.clone());
        man.render_description_section(&mut section)?;
        if subcommand.get_arguments().next().is_some() {
            man.render_options_section(&mut section)?;
        }
        // Its headings are those of a part of the page; the one above the description would say nothing.
        let section = String::from_utf8_lossy(&section).replace(".SH DESCRIPTION\n", "").replace(".SH ", ".SS ");
        page.extend_from_slice(section.as_bytes());
    }
    page.extend_from_slice(REST.as_bytes());
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_command_and_option() {
        let page = String::from_utf8(page(Cli::command()).expect("memory takes all")).expect("text");
        assert!(page.contains(".TH pgweir 1"), "{page}");
        for subcommand in Cli::command().get_subcommands() {
            assert!(page.contains(&format!(".SS pgweir {}", subcommand.get_name())), "{page}");
            for option in subcommand.get_arguments().filter_map(clap::Arg::get_long) {
                assert!(page.contains(&option.replace('-', "\\-")), "--{option}\n{page}");
            }
        }
        for section in ["FILES", "SIGNALS", "EXIT STATUS"] {
            assert!(page.contains(&format!(".SH {section}\n")), "{section}");
        }
    }
}

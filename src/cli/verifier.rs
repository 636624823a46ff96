//! `pgweir verifier`: a password goes in on stdin, what may stand in a file comes out.

use std::io;
use std::num::NonZeroU32;

use pgweir::Verifier;
use ring::rand::{SecureRandom, SystemRandom};

use super::Exit;

/// As Postgres: `scram_iterations` and SCRAM_DEFAULT_SALT_LEN.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();
const SALT_BYTES: usize = 16;

/// Prints the SCRAM-SHA-256 verifier of the password on the first line of stdin.
pub(super) fn verifier() -> Exit {
    let mut line = String::new();
    if let Err(error) = io::stdin().read_line(&mut line) {
        eprintln!("cannot read the password from stdin: {error}");
        return Exit::BadInput;
    }
    let password = line.trim_end_matches(['\n', '\r']);
    if password.is_empty() {
        eprintln!("no password on stdin; use for example: pgweir verifier < password.txt");
        return Exit::BadInput;
    }
    let mut salt = [0; SALT_BYTES];
    SystemRandom::new().fill(&mut salt).expect("the system has random numbers");
    println!("{}", Verifier::new(password, &salt, ITERATIONS));
    Exit::Done
}

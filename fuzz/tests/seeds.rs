//! The differential check over a list of statements that were each chosen to be hard: `make fuzz` runs it in seconds.

use pgweir_fuzz::oracle::check;

fn seeds() -> Vec<String> {
    include_str!("../seeds/statements.sql")
        .lines()
        .filter(|line| !line.starts_with("-- "))
        .map(|line| line.replace(r"\n", "\n").replace(r"\r", "\r").replace(r"\f", "\x0c"))
        .collect()
}

#[test]
fn every_seed_is_read_as_postgres_reads_it() {
    let refused: Vec<_> = seeds().into_iter().filter(|seed| !check(seed)).collect();
    assert_eq!(refused, [""; 0], "seeds that Postgres refuses prove nothing");
}

#[test]
fn two_seeds_in_one_text_are_read_as_postgres_reads_them() {
    let seeds = seeds();
    let pairs = seeds.iter().zip(seeds.iter().cycle().skip(7));
    pairs.for_each(|(first, second)| {
        check(&format!("{first}\n;{second}"));
    });
}

#[test]
fn every_prefix_of_a_seed_is_read_as_postgres_reads_it() {
    for seed in seeds() {
        let ends = seed.char_indices().map(|(end, _)| end);
        ends.for_each(|end| {
            check(&seed[..end]);
        });
    }
}

# Builds, runs and tests pgweir on Debian or Ubuntu with nothing but make and Rust: each target first installs what it needs
# and this machine lacks (as root, or with sudo).

.PHONY: help install build run check advisories test differential bench drills budget fuzz screenshots
.DEFAULT_GOAL := help

help:
	@echo 'make run     pgweir in front of a throw-away Postgres; make run DATABASE_URL=postgres://… for one of yours'
	@echo 'make check   formatting, lints, docs, dependencies'
	@echo 'make test    everything that can be tested'
	@echo 'make differential SECONDS=3600   random clients beside a direct connection, until they hear something else'
	@echo 'make fuzz    every fuzz target beside the parser of Postgres; FUZZ_SECONDS=60 for new inputs that long'
	@echo 'make bench   speed against PgBouncer'
	@echo 'make drills  incidents on purpose, half an hour; DRILL=burst, valve, lock-queue, zombie, leak, notify, convoy, horizon, fleet, cancel, brownout, runaway, observe or greedy for one'
	@echo 'make budget  syscalls and instructions per transaction'
	@echo 'make advisories   known faults of our dependencies, from a list on the network'
	@echo 'make screenshots  pictures of the status page, for docs/'
	@echo 'make install      at once, all the packages that the others install when they need them'

install:
	@scripts/install run test bench fuzz

build:
	@scripts/install build
	cargo build --release --locked

# For a Postgres of yours none is installed.
run:
	@scripts/install $(if $(DATABASE_URL),build,run)
	cargo build --release --locked
	@scripts/run

check:
	@scripts/install build
	cargo fmt --check
	cargo clippy --locked --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items
	scripts/deny

# Apart from make check: the list changes with no change of ours, and comes from a host that not every machine may reach.
advisories:
	@scripts/install build
	scripts/deny advisories

# Where random clients begin in make test; make differential begins anywhere.
SEED := 20261129000

# Behaviour tests mostly wait for something, so more of them run at once than there are cores.
TEST_THREADS := $(shell echo $$((4 * $$(nproc) < 16 ? 4 * $$(nproc) : 16)))
test:
	@scripts/install test
	cargo test --locked --lib --bins
	cargo test --locked --doc
	scripts/fuzz
	PGWEIR_TEST_PG=18 RUST_TEST_THREADS=$(TEST_THREADS) cargo test --locked --test it -- $(PG18)
	PGWEIR_TEST_PG=18 DIFFERENTIAL_SECONDS=30 DIFFERENTIAL_SEED=$(SEED) cargo test --locked --test differential -- --nocapture
	DIFFERENTIAL_SECONDS=30 DIFFERENTIAL_SEED=$(SEED) RUST_TEST_THREADS=$(TEST_THREADS) cargo test --locked --test '*'
	$(MAKE) budget

# Half of the time each on Postgres 18 and 15. DIFFERENTIAL_SEED=… begins where a run that failed said.
SECONDS := 3600
differential:
	@scripts/install test
	PGWEIR_TEST_PG=18 DIFFERENTIAL_SECONDS=$$(($(SECONDS) / 2)) cargo test --locked --test differential -- --nocapture clients
	DIFFERENTIAL_SECONDS=$$(($(SECONDS) / 2)) cargo test --locked --test differential -- --nocapture clients

bench: build
	@scripts/install bench
	python3 benches/compare

# The load comes from a build of its own, which leaves target/release/pgweir as users have it.
DRILL := all
drills: build
	@scripts/install bench
	cargo bench --locked --profile dev --bench drills -- $(DRILL)

# System calls and instructions per transaction: they hold on any machine, so CI can hold them.
budget: build
	@scripts/install bench
	python3 benches/compare/budget.py

# What the targets of make test do not compile: a parser in C, to compare with.
fuzz:
	@scripts/install fuzz
	cargo test --locked --manifest-path fuzz/Cargo.toml --features oracle
	scripts/fuzz oracle

# docs/images/status-*.png, two minutes.
screenshots:
	@scripts/install test
	cargo test --locked --test it -- --ignored --exact page::screenshots

# What a server's version can change: its answers, COPY, its catalogs, its timeouts, starting and stopping it. That build of it has no
# pg_basebackup, so it makes no standby.
PG18 := harness:: queries:: copy:: shadow:: timeouts:: watch:: watchers:: reactions:: --skip standby

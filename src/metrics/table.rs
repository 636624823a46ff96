//! The one list of what `/metrics` shows: names, units, labels, help. Counters, docs, dashboards and alerts follow it.

use super::Label;
use super::cause::{
    CancelCause, CloseReason, FleetCancel, LoginRefusal, OpenFailure, PasswordOutcome, PinEnd, ReloadOutcome,
    ReplayReason,
};
use crate::state::timeout::Timeout;

/// How a metric's values are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// As it is now.
    Gauge,
    /// Counts by duration.
    Histogram,
}

impl MetricKind {
    /// As Prometheus knows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A line of the table.
#[derive(Debug)]
struct MetricLine {
    section: &'static str,
    name: &'static str,
    kind: MetricKind,
    labels: &'static [Label],
    help: &'static str,
    advice: &'static str,
}

impl Metric {
    fn line(self) -> &'static MetricLine {
        &LINES[self as usize]
    }

    /// The heading it stands under in the docs.
    pub fn section(self) -> &'static str {
        self.line().section
    }

    /// Its name, which ends in its unit.
    pub fn name(self) -> &'static str {
        self.line().name
    }

    /// How its values are to be read.
    pub fn kind(self) -> MetricKind {
        self.line().kind
    }

    /// Its labels, in the order in which their values are given.
    pub fn labels(self) -> &'static [Label] {
        self.line().labels
    }

    /// One sentence on its meaning.
    pub fn help(self) -> &'static str {
        self.line().help
    }

    /// One sentence of advice for when it moves.
    pub fn advice(self) -> &'static str {
        self.line().advice
    }
}

/// A counter and the words of its label.
type Family = (Metric, &'static [&'static str]);

/// Where each counter's slots begin.
struct Layout {
    first: [usize; Metric::ALL.len()],
    slots: usize,
}

impl Layout {
    const fn of(families: &[Family]) -> Self {
        let mut layout = Self { first: [0; Metric::ALL.len()], slots: 0 };
        let mut n = 0;
        while n < families.len() {
            layout.first[families[n].0 as usize] = layout.slots;
            layout.slots += families[n].1.len();
            n += 1;
        }
        layout
    }
}

metrics! {
    "The process" {
        Gauge BuildInfo "pgweir_build_info" [Version]
            "Always 1; its label is the version."
            "Two versions at once: a rolling restart is under way, or did not come to its end."
        Gauge StartTime "pgweir_start_time_seconds" []
            "When it started, in seconds since 1970."
            "It changes at every start: one that nobody ordered is a crash, and the log before it says why."
        Gauge ProcessStartTime "process_start_time_seconds" []
            "As pgweir_start_time_seconds."
            "Dashboards for any process ask for it by this name, as for the five that follow."
        Counter ProcessCpu "process_cpu_seconds_total" []
            "CPU time of all threads, in the kernel, too."
            "Near as many seconds a second as `listen.workers` says: pgweir is the bottleneck; pgweir_workers_serving."
        Gauge ProcessResidentMemory "process_resident_memory_bytes" []
            "Memory that it has in RAM."
            "Much more than pgweir_client_memory_bytes: many clients with few statements each, or wide result rows."
        Gauge ProcessVirtualMemory "process_virtual_memory_bytes" []
            "Addresses that it has reserved."
            "Threads reserve more than they use: a limit of the container is about the memory in RAM."
        Gauge ProcessOpenFiles "process_open_fds" []
            "File descriptors that are open: one for each client and for each backend."
            "Near process_max_fds connections wait to be accepted."
        Gauge ProcessFilesMax "process_max_fds" []
            "File descriptors that may be open."
            "`listen.clients_max` is lowered to it at the start; raise LimitNOFILE or ulimit -n."
        Gauge CertificateExpiry "pgweir_certificate_expiry_seconds" [Certificate]
            "Time until a certificate that pgweir shows to clients or servers, or one of its chain, expires; negative afterwards."
            "Days: put the new one in its place and RELOAD; what is on the disk alone does not count."
        Gauge Draining "pgweir_draining" []
            "1 while pgweir goes down."
            "Longer than `listen.shutdown_timeout`: `SHOW CLIENTS` tells who does not leave."
        ProcessCounter Reloads "pgweir_config_reloads_total" [ReloadOutcome]
            "Readings of the configuration after the first, by outcome: applied or refused."
            "`refused`: the old configuration stays in force; the log lists the mistakes, and `pgweir check` does before a reload."
        Gauge ConfigCurrent "pgweir_config_last_reload_successful" []
            "1 if the configuration that was read last is in force."
            "0: the file on the disk has mistakes, and pgweir would not start with it; `pgweir check` lists them."
        Gauge WorkersServing "pgweir_workers_serving" []
            "Threads that serve clients now; with `listen.workers = \"auto\"` as many as the load needs."
            "At the number of CPUs for long: pgweir has no more to give here; add an instance."
        Counter ClientMoves "pgweir_client_moves_total" []
            "Clients that moved from one worker to another."
            "Some at each change of pgweir_workers_serving. Without an end: loads that change within seconds; set `listen.workers`."
        Counter BackendMoves "pgweir_backend_moves_total" []
            "Backends that were lent to a client of another worker than the last."
            "Each costs some microseconds. None while one worker serves."
    }
    "Clients and logins" {
        Gauge Connections "pgweir_connections" []
            "Connections of clients, logins and consoles included."
            "Near pgweir_clients_max the next ones are refused with 53300."
        Gauge Arrivals "pgweir_connections_arriving" []
            "Connections that have not logged in."
            "Many, with few logins: somebody opens connections and says nothing, or guesses passwords; the log of failed logins has addresses."
        ProcessCounter GaveWay "pgweir_connections_gave_way_total" []
            "Connections closed before they had logged in, to make room for another one."
            "It moves only where all places are taken: silent connections go first, the oldest of the address that has most."
        Gauge ClientsMax "pgweir_clients_max" []
            "listen.clients_max: clients that may be logged in at once."
            "For the share in use."
        Gauge ClientMemory "pgweir_client_memory_bytes" []
            "Memory that clients take: messages in hand, answers that they do not read, statements, settings."
            "Near `listen.memory_max` clients that need more are closed with 53200; SHOW CLIENTS tells who waits."
        ProcessCounter MemoryRefusals "pgweir_client_memory_refusals_total" []
            "Clients closed with 53200, because they or all together took more memory than they may."
            "Clients that prepare statements without end, or pipeline without reading; or raise `listen.memory_max` or `listen.client_memory_max`."
        Counter RecorderLost "pgweir_recorder_lost_total" []
            "With a `[recorder]`: transactions that are not in the recording, because its disk was too slow."
            "A replay of it has fewer arrivals than there were; put the file on another disk."
        Gauge Clients "pgweir_clients" [Database Role ClientState]
            "Clients that are logged in, by what they do."
            "Many waiting: the pool is full, or the role at its limit; `SHOW POOLS` and `SHOW ROLES` tell which."
        PoolCounter Logins "pgweir_logins_total" [Database Role]
            "Logins of clients."
            "A high rate: clients connect for each query; give them a pool of their own, or set `admission.login_rate`."
        ProcessCounter LoginFailures "pgweir_login_failures_total" [LoginRefusal]
            "Connections refused before they became clients, by reason."
            "`clients_max`, `role_clients_max`, `database_clients_max`, `address_clients_max`, `login_rate` and `login_rate_per_address` are limits of pgweir's, named as their settings; `server`: the database could not be asked; `authentication`: a wrong password, or somebody who tries some."
        ProcessHistogram Login "pgweir_login_seconds" []
            "From a client's connection to its first ReadyForQuery, of those that logged in."
            "Slow: logins wait for `admission.login_rate`, for a first backend, or for an auth_query; pgweir_login_delay_seconds tells the first apart."
        ProcessHistogram LoginDelay "pgweir_login_delay_seconds" []
            "How long logins over admission.login_rate were kept waiting, of those that were."
            "A login storm is being spread: look at who reconnects. Past `admission.login_delay_max` logins are refused."
        Counter Errors "pgweir_errors_total" [Sqlstate]
            "Errors sent to clients, by SQLSTATE, Postgres's and pgweir's."
            "53300: a queue is full or too slow. 57P03, 08006: the server cannot be reached. 57014, 55P03, 25P03, 25P04: timeouts, often the first sign of a convoy. Those of pgweir's own are in SQLSTATES.md."
        PoolCounter Received "pgweir_received_bytes_total" [Database Role]
            "Bytes from clients."
            "Tells who loads the network."
        PoolCounter Sent "pgweir_sent_bytes_total" [Database Role]
            "Bytes to clients."
            "Tells who loads the network; a jump is often a query that lost its LIMIT."
    }
    "Pools" {
        Gauge Backends "pgweir_backends" [Database Role BackendState]
            "Backends by state: opening, idle, closing, handed, leased, or zombie, given up in the middle of something and not ended by the server yet."
            "No idle ones while clients wait: the pool is full. Zombies: queries of clients that gave up still run; see pgweir_zombies_total."
        Gauge BackendsMax "pgweir_backends_max" [Database Role]
            "pool.size: backends that a pool may have."
            "For the share in use."
        Gauge Waiters "pgweir_waiters" [Database Role]
            "Clients that wait for a backend."
            "Above 0 for long: `pool.size` or the role's limit is the bottleneck, or something holds backends; pgweir_lease_seconds tells whether leases became longer."
        Gauge OldestWait "pgweir_oldest_wait_seconds" [Database Role]
            "How long the client at the head of the queue has waited."
            "Growing second by second: nothing comes back at all. Look for a convoy, a role with a limit of 0, or a pause."
        PoolHistogram Wait "pgweir_pool_wait_seconds" [Database Role]
            "How long clients waited for a backend, of those that had to."
            "Compare with `pool.wait_timeout`, past which they get 53300."
        PoolHistogram Lease "pgweir_lease_seconds" [Database Role]
            "How long clients held a backend."
            "Longer leases with the same load are what fills a pool: slower queries, or transactions in which the client does something else."
        PoolCounter Leases "pgweir_leases_total" [Database Role]
            "Leases of a backend ended."
            "Below pgweir_transactions_total: transactions share leases, in session mode or through pins."
        PoolHistogram Open "pgweir_backend_open_seconds" [Database Role]
            "How long it took to open a backend: name, connection, TLS, login."
            "Its count is how many were opened: a steady rate without load is a `pool.lifetime` that is too short, or a server that drops connections. Slow ones: the server has no CPU for logins, or DNS hangs."
        PoolCounter OpenFailures "pgweir_backend_open_failures_total" [Database Role OpenFailure]
            "Backends that could not be opened, by reason: unreachable, refused (wrong password, no such database) or busy (the server's own limit of connections)."
            "`busy`: `max_connections` at the server is below what `pool.size` and `databases.*.backends_max` allow, or somebody else has them. The log has the server's words."
        ProcessCounter PasswordRuns "pgweir_password_runs_total" [PasswordOutcome]
            "Runs of the commands that print passwords, by outcome: succeeded or failed."
            "`failed`: the last password is kept, and good until its time at the server is up; the log says why the command failed."
        PoolCounter BackendsClosed "pgweir_backends_closed_total" [Database Role CloseReason]
            "Backends closed, by reason: retired (lifetime, idle_timeout, a limit, a reload) or unfit (lost, or left in a state that no other client may have)."
            "`unfit`: the server drops connections, or clients vanish in the middle of something. `retired` at a high rate: `pool.lifetime` or `pool.idle_timeout` is too short."
        Gauge PoolsUnlisted "pgweir_pools_unlisted" []
            "Pools left out of this page: of those that only a \"*\" of the configuration serves, it shows 200."
            "Name in `proxy.toml` the databases and roles that you want to see."
        Gauge Pins "pgweir_pins" [Database Role PinReason]
            "Clients that keep their backend between transactions, by reason."
            "Each takes a backend from everybody else. `SHOW PINS` names the clients."
        PoolCounter PinsEnded "pgweir_pins_ended_total" [Database Role PinEnd]
            "Pinned clients that were closed, by the limit that ended them: pin_timeout or pins_max of their role."
            "The log names each of them and its reasons. Programs take session state and do not let go of it: give them a role in session mode, or raise the limit."
        Gauge EndpointUp "pgweir_endpoint_up" [Database]
            "1 if the database's server answered when it was dialled last, or was never dialled."
            "0: the server is down or unreachable; `SHOW DATABASES` says since when, the log why."
        Gauge Paused "pgweir_paused" [Database]
            "1 between PAUSE and RESUME."
            "Nobody gets a backend until `RESUME`."
        Gauge Unproved "pgweir_unproved" [Database]
            "1 while the topology knows no server of the role that the database needs."
            "Clients wait meanwhile; `SHOW TOPOLOGY` says why."
        Gauge ReaderUsed "pgweir_reader_used" [Database Reader]
            "1 if clients are sent to this reader of a database with readers = true."
            "0: it is down, too far behind, a spare, or the primary; `SHOW READERS` says which."
        Gauge ReaderActive "pgweir_reader_active" [Database Reader]
            "Backends of a reader that are with clients."
            "The readers that are used should have about the same; one with more answers more slowly, see `databases.*.load_balance`."
        Gauge ReaderBackends "pgweir_reader_backends" [Database Reader]
            "Backends at a reader, those on their way out included."
            "A reader that has come into use gets its part within some seconds."
        Gauge ReaderLag "pgweir_reader_lag_seconds" [Database Reader]
            "How far a reader is behind the primary, as of its last answer; absent where nobody knows."
            "Above `databases.*.lag_max` it gets nothing. Look for long queries there and for what the primary writes."
    }
    "Queries and transactions" {
        Counter Queries "pgweir_queries_total" [Database Role]
            "Cycles ended: a Query, or a Sync with what came before it."
            "The load as clients make it."
        Counter Transactions "pgweir_transactions_total" [Database Role]
            "Transactions ended."
            "The load as the server feels it."
        PoolHistogram Query "pgweir_query_seconds" [Database Role]
            "How long cycles took, from a client's first message with a backend at hand to its ReadyForQuery."
            "Waits for a backend are not in it: if it grows, the server became slower."
        PoolHistogram Transaction "pgweir_transaction_seconds" [Database Role]
            "How long transactions took, from their first message with a backend at hand to their end."
            "Longer while pgweir_query_seconds stands still: clients do something else in their transactions, and `roles.*.idle_in_transaction_timeout` bounds that."
        PoolCounter Timeouts "pgweir_timeouts_total" [Database Role Timeout]
            "Statements and transactions that timeouts ended, by timeout: statement, lock, idle_in_transaction or transaction."
            "The early warning. `lock`: a convoy begins, see `SHOW CONVOYS`; `statement`: a plan went bad or the server is overloaded; the others: clients that forget their transactions. The limits are `roles.*.statement_timeout` and so on."
        PoolCounter Replays "pgweir_replays_total" [Database Role ReplayReason]
            "Statements sent again because they did not run, by reason: unsent, or read_only where the server may not write."
            "A switchover: the clients noticed nothing of it. Without one, `SHOW TOPOLOGY` says which server is used."
        ProcessCounter Cancels "pgweir_cancels_total" [CancelCause]
            "CancelRequests sent to servers, by cause: client, zombie for one that vanished, or timeout."
            "`timeout`: the server did not end it by itself; its own timeout was set away, or it hangs."
        ProcessCounter CancelsDropped "pgweir_cancels_dropped_total" []
            "CancelRequests of clients over admission.cancel_rate_per_address; nothing came of them."
            "A client cancels in a loop, or many share an address: raise `admission.cancel_rate_per_address`."
        ProcessCounter FleetCancels "pgweir_fleet_cancels_total" [FleetCancel]
            "CancelRequests that came to another instance than their client's, by outcome: forwarded, unknown (nobody has the client), unreached (an instance could not be asked); and received, from another instance for a client of ours."
            "`unreached`: an address of `fleet.peers` does not answer. `unknown`: the client is gone, or `fleet.peers` lacks an instance."
        PoolCounter Zombies "pgweir_zombies_total" [Database Role]
            "Queries that were cancelled because their client vanished, or given up because a timeout passed and the server did not answer the cancel."
            "Clients give up before the server answers: their own timeout is shorter than `roles.*.statement_timeout`, or they are being restarted. Or the server hangs: see pgweir_timeouts_total."
    }
    "Statements" {
        Counter StatementCalls "pgweir_statement_calls_total" [Digest]
            "Runs of the statements that kept the servers busy longest, by digest."
            "SHOW STATEMENTS has their texts, and who calls them."
        Counter StatementServerTime "pgweir_statement_server_seconds_total" [Digest]
            "Time that these statements took at the servers."
            "One that takes ever more of it: a missing index, another plan, or more rows than before."
        Counter StatementWaits "pgweir_statement_wait_seconds_total" [Digest]
            "Time that clients waited for a backend, by the statement that their transaction began with."
            "It tells the queue from the server: much of it with little time at the server is a limit, or a pool that is too small."
        Counter StatementErrors "pgweir_statement_errors_total" [Digest]
            "Runs of these statements that ended in an error."
            "SHOW STATEMENTS has them by class of SQLSTATE."
        Counter StatementTimeouts "pgweir_statement_timeouts_total" [Digest]
            "Runs of these statements that a timeout ended."
            "A statement whose timeouts rise is the early warning of an overload: look at its plan before it is many."
        Gauge StatementsKept "pgweir_statements_tracked" []
            "Statements that have a record of their own."
            "The same for hours, while `(all others)` of SHOW STATEMENTS grows: raise `statements.memory`, or find who writes values into texts."
    }
    "The fleet" {
        Gauge FleetInstances "pgweir_fleet_instances" []
            "Instances that the limits are divided among, this one included; absent with fleet.mode = \"off\"."
            "Differs between instances: some do not reach the Redis, or have another `fleet.name` or watch role."
        Gauge FleetLeaseState "pgweir_fleet_lease_state" [LeaseState]
            "1 for the way in which limits are held: granted; shrunk and even, the Redis is lost; smallest, it is not known by how many to divide; lapsed, the process stood still. Absent without leases."
            "Anything but `granted`: `fleet.url` does not answer; the log says why."
        Counter FleetRefreshes "pgweir_fleet_refreshes_total" [RefreshOutcome]
            "Requests for leases, by outcome: answered or failed."
            "`failed`: as above."
        Gauge FleetRefreshSeconds "pgweir_fleet_refresh_seconds" []
            "How long the last request for leases took."
            "Over 0.1: the Redis is slow or far away, and a busy instance gets its share later."
        Gauge RolePart "pgweir_fleet_role_part" [Role]
            "This instance's part of the role's limit; the limit itself with fleet.mode = \"off\"."
            "The sum over all instances is the limit, or less for a moment while a part moves."
    }
    "Roles and their limits" {
        Gauge RoleActive "pgweir_role_active" [Role]
            "Backends that a role's clients hold, over all databases."
            "At pgweir_role_effective_limit the role's clients wait."
        Gauge RoleLimit "pgweir_role_limit" [Role]
            "The role's limit: roles.*.transactions_max, or that of the last LIMIT; absent where only the pools limit a role."
            "0: none of the role's transactions may start; `LIMIT` raises it."
        Gauge RoleEffectiveLimit "pgweir_role_effective_limit" [Role]
            "How many may be active now: the limit, its ramp and slow start; absent where nothing but the pools limits a role."
            "Below the limit: a ramp or slow start is under way, or transactions became slow and it was cut."
        Gauge RoleWaiters "pgweir_role_waiters" [Role]
            "Clients of a role that wait, over all databases."
            "Growing while pgweir_role_active stands at the effective limit: the role asks for more than it may have."
        Gauge RoleOldestWait "pgweir_role_oldest_wait_seconds" [Role]
            "How long the client at the head of the role's queue has waited."
            "Near `pool.wait_timeout`: clients are about to get 53300."
        Gauge RoleState "pgweir_role_state" [Role RoleState]
            "1 for the state a role is in: calm, burst, stuck (full, and nothing ends) or closed."
            "`stuck`: look at `SHOW CONVOYS` and the role's transactions in `SHOW CLIENTS`."
        Counter RoleStarts "pgweir_role_starts_total" [Role]
            "Transactions started."
            "The role's load."
        Counter RoleStartsImmediate "pgweir_role_starts_immediate_total" [Role]
            "Transactions started without a wait."
            "Its share of all starts is how often pgweir adds no wait at all."
        Counter RoleRefused "pgweir_role_refused_total" [Role RoleRefusal]
            "Transactions refused, by reason: full (the queue was) or shed (the wait would have been too long)."
            "Clients got 53300 at once. `full`: `pool.waiters_max` or `roles.*.waiters_max`; `shed`: the role starts too few for its queue."
        Counter RoleWaitTimeouts "pgweir_role_wait_timeouts_total" [Role]
            "Clients that left the queue after wait_timeout."
            "Clients got 53300 after `pool.wait_timeout`: raise the role's limit or the pool if the server has room, lower the load if not."
        Counter RoleBursts "pgweir_role_bursts_total" [Role]
            "Bursts begun."
            "Clients act in lockstep: a cron minute, a restart, a cache that expired."
        Counter RoleStuck "pgweir_role_stuck_total" [Role]
            "Times a role was full, somebody waited and nothing ended, until something did."
            "Transactions wait for something they share, most often a lock: a `roles.*.lock_timeout` below the server's deadlock_timeout is the fuse."
        Counter RoleConvoys "pgweir_role_convoys_total" [Role]
            "The former name of pgweir_role_stuck_total, in this release only."
            "With pgweir_role_stuck_total, which queries should name instead."
        Counter RoleLimitCuts "pgweir_role_limit_cuts_total" [Role]
            "Times slow start, the adaptive limit or `watch.on_convoy` lowered the effective limit."
            "Transactions became slow while the role was at its effective limit, or its clients waited in a convoy."
        Counter RoleLimitReverts "pgweir_role_limit_reverts_total" [Role]
            "Times the adaptive limit took its cuts back, since they did not help."
            "Something other than the role's own load makes transactions slow."
        Counter RolePaced "pgweir_role_paced_total" [Role]
            "Transactions that roles.*.rate held up."
            "The rate is in force; `roles.*.rate` says how much."
        Counter RolePaceOverflow "pgweir_role_pace_overflow_total" [Role]
            "Transactions started above the rate, after rate_delay_max."
            "The rate is lower than what the role needs over time."
        Counter RoleSpread "pgweir_role_spread_total" [Role]
            "Transactions that jitter = \"spread\" held up."
            "Bursts are being spread over `roles.*.spread_max`."
        Counter RoleObserved "pgweir_role_observed_total" [Role Observed]
            "With `limit_mode = \"observe\"`: transactions that the role's limit would have let wait, wait for too long, or refused."
            "Low while the role works as it should: the limit can be enforced. `waits` are the price of it, `timed_out` and `refused` its errors."
    }
    "Lanes" {
        Gauge LaneActive "pgweir_lane_active" [Lane]
            "Transactions of a lane that are under way."
            "At pgweir_lane_effective_limit those that come wait, or are refused, as the lane's `mode` says."
        Gauge LaneEffectiveLimit "pgweir_lane_effective_limit" [Lane]
            "How many may be under way now: the limit and its slow start; absent where nothing limits them."
            "Below `lanes.*.transactions_max`: slow start is under way, or the lane's transactions became slow."
        Gauge LaneWaiters "pgweir_lane_waiters" [Lane]
            "Transactions of a lane that wait, for the lane or for what its role and pool wait for."
            "Growing: the lane asks for more than it may have, which is what it is for; clients get 53300 after `lanes.*.wait_timeout`."
        Counter LaneStarts "pgweir_lane_starts_total" [Lane]
            "Transactions started."
            "The lane's load. 0 for long: its `match` matches nothing."
        Counter LaneWaited "pgweir_lane_waited_total" [Lane]
            "Transactions started after a wait."
            "Its share of all starts is how often the lane, or a pool, holds something back."
        Counter LaneRefused "pgweir_lane_refused_total" [Lane]
            "Transactions and statements refused at once."
            "The lane refuses (`mode`), or its queue is full or too slow: clients got 53300, or 53400 within a transaction."
        Counter LaneWaitTimeouts "pgweir_lane_wait_timeouts_total" [Lane]
            "Transactions that left the queue after wait_timeout."
            "Clients got 53300: raise the limit of the lane or its `wait_timeout`, or send less of its kind."
        Counter LaneObserved "pgweir_lane_observed_total" [Lane Observed]
            "With `mode = \"observe\"`: transactions that the lane would have let wait, wait for too long, or refused."
            "As for roles."
    }
    "The watch" {
        Gauge WatchUp "pgweir_watch_up" [Database]
            "1 while the watch of a database has a connection that answers."
            "0: pgweir does not see what goes on at the server; `SHOW WATCH` and the log say why. Its role is `watch.role`."
        Gauge WatchServer "pgweir_watch_server" [Server Database]
            "1 for each watched database and its server."
            "Series of a whole server (locks, sessions, its role) carry `server` only; this joins its databases to them."
        Gauge WatchStandby "pgweir_watch_standby" [Server]
            "1 if the watched server follows another one."
            "It changes at a failover."
        Gauge WatchState "pgweir_watch_state" [Server WatchState]
            "1 for the state in which the watch sees the server: calm, suspect, convoy, blind (no answer) or recovered."
            "`convoy` or `blind`: `SHOW CONVOYS` names the lock, who is at the root of it, and what would end it."
        Gauge WatchOpen "pgweir_watch_findings_open" [Server Database Finding]
            "Findings that are open, by kind: those of a whole server (convoy, blind, blocker, notify_queue, server_role) under `server`, the others under `database`."
            "`SHOW CONVOYS`, `SHOW HORIZON` and `SHOW BLOCKERS` have them in words, with the statement that would end each."
        Counter WatchFound "pgweir_watch_findings_total" [Server Database Finding]
            "Findings that were opened, by kind; as above."
            "Each has a record in the log when it begins and when it ends."
        Counter WatchReactions "pgweir_watch_reactions_total" [Server Reaction]
            "Reactions to findings: tighten (watch.on_convoy lowered a role's limit) or cancel (watch.on_idle_holder ended a transaction)."
            "The log says to whom and why."
        Gauge WatchSessions "pgweir_watch_sessions" [Server SessionState]
            "Sessions of the whole server, by state: active, idle_in_transaction or idle."
            "Many active ones that are not pgweir's: somebody goes around it."
        Gauge WatchLockWaiters "pgweir_watch_lock_waiters" [Server LockKind]
            "Sessions of the whole server that wait for a lock, by what it is on."
            "Past `watch.convoy_waiters` it is a convoy. Some 500 in one queue freeze the whole server."
        Gauge WatchLockManagerWaiters "pgweir_watch_lock_manager_waiters" [Server]
            "Sessions of the whole server that wait for the lock manager itself: deadlock checks run."
            "Everything at the server waits, not only those in the queue: lower the load with `LIMIT`."
        Gauge WatchOldestLockWait "pgweir_watch_oldest_lock_wait_seconds" [Server]
            "How long the session that has waited longest for a lock has been seen waiting."
            "Past `watch.blocked` `SHOW BLOCKERS` tells who keeps them waiting."
        Histogram WatchQuery "pgweir_watch_query_seconds" [Database]
            "How long the server took to answer the watch."
            "Milliseconds at rest become seconds in a convoy."
        Gauge XminAgeTransactions "pgweir_xmin_age_transactions" [Database Holder]
            "How many transactions ago the oldest snapshot was taken that keeps vacuum from its work, by who has it: backend, walsender, slot or prepared transaction."
            "`SHOW HORIZON` names the culprit and what would end it; the threshold is `watch.horizon_transactions`."
        Gauge XminAge "pgweir_xmin_age_seconds" [Database Holder]
            "How long ago that snapshot was taken."
            "As above; the threshold is `watch.horizon_age`. For clients of pgweir's own `roles.*.idle_in_transaction_timeout` prevents it."
        Gauge DeadTuples "pgweir_dead_tuples" [Database Relation]
            "Dead rows of the tables with the most, five for each database."
            "Growing although vacuum runs: something holds the horizon; see pgweir_xmin_age_seconds."
        Gauge WatchOutside "pgweir_watch_outside_connections" [Database]
            "Connections to a database that are not pgweir's."
            "pgweir cannot limit them; past `watch.outside_max` the watch reports them."
        Gauge ServerNotifyQueue "pgweir_server_notify_queue_ratio" [Server]
            "How full the server's own queue of notifications is, from 0 to 1."
            "At 1 every NOTIFY fails at its COMMIT: a session that listens idles in a transaction; `SHOW BLOCKERS` names those that idle."
    }
    "Notifications" {
        Gauge NotifyQueue "pgweir_notify_queue" [Database]
            "Notifications that wait for the bus."
            "Growing: the bus is down or slow; at its bound `notify.when_down` decides."
        Gauge NotifyListeners "pgweir_notify_listeners" [Database]
            "Clients that listen."
            "`SHOW LISTENERS` names them."
        Gauge NotifyChannels "pgweir_notify_channels" [Database]
            "Channels that clients listen to."
            "Each is listened to once on the server."
        Counter NotifyIntercepted "pgweir_notify_intercepted_total" [Database]
            "Notifications kept out of the server's transactions, committed or not."
            "0 although clients notify: they do it where pgweir cannot see it; `pgweir notify-sql` helps."
        Counter NotifyPublished "pgweir_notify_published_total" [Database]
            "Intercepted notifications that were committed, handed to the listeners here and to the bus."
            "The load on the bus."
        Counter NotifyDelivered "pgweir_notify_delivered_total" [Database]
            "Notifications sent to clients, each as often as it has listeners."
            "The load on listeners."
        Counter NotifyFolded "pgweir_notify_folded_total" [Database]
            "Intercepted notifications equal to an earlier one of their transaction."
            "Postgres would have folded them too."
        Counter NotifyDropped "pgweir_notify_dropped_total" [Database DropCause]
            "Notifications lost, by cause: listener (one did not read, and was closed), bus (it took nothing for too long) or commit (its outcome is not known)."
            "`listener`: a client is too slow for `notify.listener_queue`; `bus`: see pgweir_notify_queue."
        Counter NotifyGaps "pgweir_notify_gaps_total" [Database GapCause]
            "Times listeners may have missed something, by cause: bridge (the connection that listens on the server), bus, hole (in its numbers) or switched."
            "Listeners were disconnected with 08006, so that they look for themselves."
        Histogram NotifyBus "pgweir_notify_bus_seconds" [Database]
            "From the commit of a notification until the bus has it."
            "How late listeners behind other pgweirs are at least."
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_are() {
        for metric in Metric::ALL {
            let name = metric.name();
            // Every exporter has those of the process under the same names.
            assert!(name.starts_with("pgweir_") || name.starts_with("process_"), "{name}");
            assert!(metric.help().ends_with('.') && metric.advice().ends_with('.'), "{name}");
            assert_eq!(metric.kind() == MetricKind::Counter, name.ends_with("_total"), "{name}");
            assert!(metric.kind() != MetricKind::Histogram || name.ends_with("_seconds"), "{name}");
        }
    }

    #[test]
    fn no_two_labels_of_one_metric_have_the_same_name() {
        for metric in Metric::ALL {
            let mut names: Vec<_> = metric.labels().iter().map(|label| label.name()).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), metric.labels().len(), "{}", metric.name());
        }
    }
}

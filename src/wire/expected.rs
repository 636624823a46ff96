//! Cycle accounting: messages that were sent to a backend and are not answered yet.
//!
//! Each message that Postgres answers pushes one entry; each answer moves or pops the oldest. A backend may go to
//! another client only at a [release point](ExpectedReplies::can_release). The rules are those of `PostgresMain` in
//! `src/backend/tcop/postgres.c` and of the manual's "Extended Query", "COPY Operations" and "Pipelining":
//!
//! 1. After an error in the extended protocol everything up to the next Sync is dropped, a Query included.
//! 2. While COPY FROM STDIN runs, Sync and Flush are swallowed.
//! 3. A COPY that fails under Execute drops to Sync, under Query it ends itself.
//! 4. Flush yields answers and no ReadyForQuery; the implicit transaction stays open until Sync.
//! 5. An answer may come before the whole request was sent.
//!
//! Entries carry an action `N` of the caller, handed back when the entry is answered or dropped. No I/O, no time.

use std::collections::VecDeque;

use thiserror::Error;

use super::tag::backend as tag;

/// The answer that the backend will give to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Query: any results, then ReadyForQuery.
    Query,
    /// FunctionCall: FunctionCallResponse, then ReadyForQuery.
    FunctionCall,
    /// Parse: ParseComplete.
    Parse,
    /// Bind: BindComplete.
    Bind,
    /// Describe of a statement: ParameterDescription, then RowDescription or NoData.
    DescribeStatement,
    /// Describe of a portal: RowDescription or NoData.
    DescribePortal,
    /// Execute: rows, then CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute,
    /// Close: CloseComplete.
    Close,
    /// Sync: ReadyForQuery.
    Sync,
    /// CopyDone or CopyFail: nothing of its own.
    CopyEnd,
    /// Never sent: an answer of ours that waits for its place.
    Synthetic,
}

impl Expect {
    /// Ends with a ReadyForQuery.
    pub(crate) fn is_cycle(self) -> bool {
        matches!(self, Self::Query | Self::FunctionCall | Self::Sync)
    }

    /// Belongs to an extended-protocol unit that a Sync ends.
    fn is_extended(self) -> bool {
        matches!(
            self,
            Self::Parse | Self::Bind | Self::DescribeStatement | Self::DescribePortal | Self::Execute | Self::Close
        )
    }
}

/// The side whose message an entry stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The client's: the answer is forwarded.
    Client,
    /// Ours: the answer is swallowed.
    Own,
}

/// Backend status as of the last ReadyForQuery (manual: ReadyForQuery).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TransactionStatus {
    /// `I`
    #[default]
    Idle,
    /// `T`
    InTransaction,
    /// `E`
    Failed,
}

impl TransactionStatus {
    /// From the byte of a ReadyForQuery.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::InTransaction),
            b'E' => Some(Self::Failed),
            _ => None,
        }
    }

    /// The byte in a ReadyForQuery.
    pub fn byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InTransaction => b'T',
            Self::Failed => b'E',
        }
    }
}

/// One entry, oldest first.
#[derive(Debug)]
pub(crate) struct ExpectedReply<N> {
    pub expect: Expect,
    pub origin: Origin,
    pub action: Option<N>,
}

/// COPY FROM STDIN or COPY BOTH, as far as the messages we send are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Copy {
    #[default]
    None,
    /// CopyInResponse seen, the client has not ended it: Sync and Flush vanish.
    In {
        /// Syncs the server may or may not have read inside the COPY.
        doubtful: bool,
    },
    /// The end was sent, or a message that is not read inside a COPY; the answer is under way.
    Ending {
        /// As in `In`.
        doubtful: bool,
    },
    /// CopyBothResponse seen: the walsender protocol until ReadyForQuery.
    Both,
}

/// The part of a COPY FROM STDIN that its client still has to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopyRest {
    /// Data, CopyDone or CopyFail, and a Sync.
    Data,
    /// A Sync.
    Sync,
}

/// The answer fits nothing that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("message {tag:?} from the backend answers nothing that was sent to it")]
pub(crate) struct Unexpected {
    /// Message type byte.
    pub tag: char,
}

/// Meaning of one backend message.
#[derive(Debug)]
pub(crate) struct Answer<N> {
    /// The side that caused it; `None`: neither, it came unasked.
    pub origin: Option<Origin>,
    /// The entry it completed.
    pub completed: Option<ExpectedReply<N>>,
}

/// Messages outstanding at one backend.
#[derive(Debug)]
pub(crate) struct ExpectedReplies<N> {
    entries: VecDeque<ExpectedReply<N>>,
    copy: Copy,
    /// An extended-protocol error was seen and its Sync was not sent yet.
    skipping: bool,
    /// Extended-protocol messages were sent that no Sync (or Query) followed yet.
    unsynced: bool,
    /// After a failed COPY the number of ReadyForQuery to come is not certain.
    doubtful: bool,
    status: TransactionStatus,
}

impl<N> Default for ExpectedReplies<N> {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            copy: Copy::None,
            skipping: false,
            unsynced: false,
            doubtful: false,
            status: TransactionStatus::Idle,
        }
    }
}

impl<N> ExpectedReplies<N> {
    /// Status as of the last ReadyForQuery.
    #[inline]
    pub(crate) fn status(&self) -> TransactionStatus {
        self.status
    }

    /// True if nothing is outstanding and no unit is open: a cycle may begin.
    #[inline]
    pub(crate) fn is_quiet(&self) -> bool {
        self.entries.is_empty() && !self.unsynced && !self.skipping && self.copy == Copy::None
    }

    /// True at a release point: quiet and outside a transaction.
    #[inline]
    pub(crate) fn can_release(&self) -> bool {
        self.is_quiet() && self.status == TransactionStatus::Idle
    }

    /// True if a failed COPY left the number of ReadyForQuery to come open; such a backend is not used again.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// The rest of a COPY under Execute that has swallowed a Sync of its client: a client with no other Sync on its way
    /// waits for one ReadyForQuery, which the last Sync of the COPY would have got.
    pub(crate) fn copy_rest(&self) -> Option<CopyRest> {
        let is_extended = self.entries.front().is_some_and(|head| head.expect == Expect::Execute);
        if !is_extended || self.entries.iter().any(|entry| entry.expect == Expect::Sync) {
            return None;
        }
        match self.copy {
            Copy::In { doubtful: true } => Some(CopyRest::Data),
            Copy::Ending { doubtful: true } => Some(CopyRest::Sync),
            _ => None,
        }
    }

    /// True if the backend waits for COPY data from the client.
    pub(crate) fn is_copying_in(&self) -> bool {
        matches!(self.copy, Copy::In { .. } | Copy::Both)
    }

    /// True if an error was seen whose Sync was not sent: the server drops messages that are sent now.
    pub(crate) fn is_skipping(&self) -> bool {
        self.skipping
    }

    /// True if extended-protocol messages were sent and no Sync yet.
    pub(crate) fn is_unsynced(&self) -> bool {
        self.unsynced
    }

    /// Number of entries not answered yet.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if no entry is outstanding.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry that is being answered.
    #[inline]
    pub(crate) fn head(&self) -> Option<&ExpectedReply<N>> {
        self.entries.front()
    }

    #[inline]
    pub(crate) fn head_mut(&mut self) -> Option<&mut ExpectedReply<N>> {
        self.entries.front_mut()
    }

    /// All entries, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &ExpectedReply<N>> {
        self.entries.iter()
    }

    /// Records a message on its way to the backend. Returns the action of a message that the server will drop unread.
    #[inline]
    pub(crate) fn push(&mut self, expect: Expect, origin: Origin, action: Option<N>) -> Option<N> {
        match (expect, self.copy) {
            // Rule 2.
            (Expect::Sync, Copy::In { .. }) => {
                self.copy = Copy::In { doubtful: true };
                return action;
            }
            (Expect::CopyEnd, Copy::In { doubtful }) => {
                self.copy = Copy::Ending { doubtful };
                return action;
            }
            (_, Copy::Both) => return action,
            // The COPY has failed before the server reads this message, or the session ends at it.
            (expect, Copy::In { doubtful }) if expect != Expect::Synthetic => self.copy = Copy::Ending { doubtful },
            _ => {}
        }
        if self.skipping {
            if expect != Expect::Sync {
                return action;
            }
            self.skipping = false;
        }
        match expect {
            Expect::Sync | Expect::Query | Expect::FunctionCall => self.unsynced = false,
            // A CopyEnd without a COPY is ignored by the server, so it holds nothing up.
            Expect::CopyEnd if self.entries.is_empty() => return action,
            Expect::CopyEnd => {}
            _ => self.unsynced = true,
        }
        self.entries.push_back(ExpectedReply { expect, origin, action });
        None
    }

    /// A row (or the description of rows) for the client: it changes nothing here and is forwarded as it is.
    #[inline]
    pub(crate) fn is_row(&self, tag: u8) -> bool {
        match self.entries.front() {
            Some(ExpectedReply { expect: Expect::Query, origin: Origin::Client, .. }) => {
                matches!(tag, tag::DATA_ROW | tag::ROW_DESCRIPTION)
            }
            Some(ExpectedReply { expect: Expect::Execute, origin: Origin::Client, .. }) => tag == tag::DATA_ROW,
            _ => false,
        }
    }

    /// Handles one message from the backend. Entries that an error made the server drop go to `dropped`, oldest first.
    /// `status` is the body of a ReadyForQuery.
    #[inline]
    pub(crate) fn answer(
        &mut self,
        tag: u8,
        status: Option<TransactionStatus>,
        dropped: &mut Vec<ExpectedReply<N>>,
    ) -> Result<Answer<N>, Unexpected> {
        let unexpected = Unexpected { tag: char::from(tag) };
        let Some(head) = self.entries.front() else {
            return match tag {
                tag::NOTICE_RESPONSE | tag::NOTIFICATION_RESPONSE | tag::PARAMETER_STATUS | tag::ERROR_RESPONSE => {
                    Ok(Answer { origin: None, completed: None })
                }
                tag::READY_FOR_QUERY if self.doubtful => {
                    self.status = status.ok_or(unexpected)?;
                    Ok(Answer { origin: Some(Origin::Client), completed: None })
                }
                _ => Err(unexpected),
            };
        };
        let (expect, origin) = (head.expect, head.origin);
        let completes = match (tag, expect) {
            (tag::NOTICE_RESPONSE | tag::NOTIFICATION_RESPONSE | tag::PARAMETER_STATUS, _) => false,
            (tag::READY_FOR_QUERY, e) if e.is_cycle() => {
                self.status = status.ok_or(unexpected)?;
                self.copy = Copy::None;
                true
            }
            (tag::ERROR_RESPONSE, _) => {
                self.fail(dropped);
                false
            }
            (tag::PARSE_COMPLETE, Expect::Parse)
            | (tag::BIND_COMPLETE, Expect::Bind)
            | (tag::CLOSE_COMPLETE, Expect::Close)
            | (tag::ROW_DESCRIPTION | tag::NO_DATA, Expect::DescribeStatement | Expect::DescribePortal)
            | (tag::PORTAL_SUSPENDED | tag::EMPTY_QUERY_RESPONSE, Expect::Execute) => true,
            (tag::COMMAND_COMPLETE, Expect::Execute) => {
                self.copy = Copy::None;
                true
            }
            (tag::COMMAND_COMPLETE, Expect::Query) => {
                if self.copy != Copy::Both {
                    self.copy = Copy::None;
                }
                false
            }
            (tag::PARAMETER_DESCRIPTION, Expect::DescribeStatement)
            | (tag::ROW_DESCRIPTION | tag::EMPTY_QUERY_RESPONSE, Expect::Query)
            | (tag::FUNCTION_CALL_RESPONSE, Expect::FunctionCall)
            | (
                tag::DATA_ROW | tag::COPY_DATA | tag::COPY_DONE | tag::COPY_OUT_RESPONSE,
                Expect::Query | Expect::Execute,
            ) => false,
            (tag::COPY_IN_RESPONSE, Expect::Query | Expect::Execute) => {
                self.copy_in(dropped);
                false
            }
            (tag::COPY_BOTH_RESPONSE, Expect::Query | Expect::Execute) => {
                self.copy = Copy::Both;
                false
            }
            _ => return Err(unexpected),
        };
        let completed = if completes { self.entries.pop_front() } else { None };
        self.skip_stray_copy_ends();
        Ok(Answer { origin: Some(origin), completed })
    }

    /// True if an answer of ours is due.
    #[inline]
    pub(crate) fn has_synthetic_due(&self) -> bool {
        self.entries.front().is_some_and(|entry| entry.expect == Expect::Synthetic)
    }

    /// The next answer of ours, if it is due.
    #[inline]
    pub(crate) fn pop_synthetic(&mut self) -> Option<ExpectedReply<N>> {
        match self.entries.front() {
            Some(entry) if entry.expect == Expect::Synthetic => {
                let entry = self.entries.pop_front();
                self.skip_stray_copy_ends();
                entry
            }
            _ => None,
        }
    }

    /// Removes CopyEnds that no COPY took; the server ignores them.
    #[inline]
    fn skip_stray_copy_ends(&mut self) {
        while self.entries.front().is_some_and(|e| e.expect == Expect::CopyEnd) {
            self.entries.pop_front();
        }
    }

    /// Rules 1 and 3: drops the entries that the server drops after an ErrorResponse.
    fn fail(&mut self, dropped: &mut Vec<ExpectedReply<N>>) {
        let copy = std::mem::take(&mut self.copy);
        if let Copy::In { doubtful: true } | Copy::Ending { doubtful: true } = copy {
            self.doubtful = true;
        }
        let head = self.entries.front().expect("checked by the caller").expect;
        if !head.is_extended() {
            return;
        }
        while let Some(entry) = self.entries.front() {
            if entry.expect == Expect::Sync {
                return;
            }
            dropped.extend(self.entries.pop_front());
        }
        self.skipping = true;
        self.unsynced = false;
    }

    /// Rule 2: Syncs sent ahead of the COPY data were read inside the COPY. What stands behind a message that is not
    /// read there was read outside.
    fn copy_in(&mut self, dropped: &mut Vec<ExpectedReply<N>>) {
        let (mut index, mut doubtful) = (1, false);
        self.copy = loop {
            match self.entries.get(index).map(|entry| entry.expect) {
                Some(Expect::Sync) => {
                    dropped.extend(self.entries.remove(index));
                    doubtful = true;
                }
                Some(Expect::Synthetic) => index += 1,
                Some(Expect::CopyEnd) => {
                    self.entries.remove(index);
                    break Copy::Ending { doubtful };
                }
                Some(_) => break Copy::Ending { doubtful },
                None => {
                    // The Syncs are gone, so the unit is open again; a Query ends itself.
                    self.unsynced |= doubtful && self.entries.front().is_some_and(|head| head.expect.is_extended());
                    break Copy::In { doubtful };
                }
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(replies: &mut ExpectedReplies<u32>, tag: u8) -> Answer<u32> {
        let status = (tag == b'Z').then_some(TransactionStatus::Idle);
        replies.answer(tag, status, &mut Vec::new()).unwrap()
    }

    fn client(replies: &mut ExpectedReplies<u32>, expects: &[Expect]) {
        for expect in expects {
            replies.push(*expect, Origin::Client, None);
        }
    }

    use Expect::*;

    // A pipeline has several ReadyForQuery: a pooler that releases at the first gives the rest of the answers to
    // another client.
    #[test]
    fn the_first_ready_of_a_pipeline_is_no_release_point() {
        let mut replies = ExpectedReplies::default();
        client(&mut replies, &[Parse, Bind, Execute, Sync, Bind, Execute, Sync]);
        for tag in *b"12CZ" {
            answer(&mut replies, tag);
        }
        assert!(!replies.can_release());
        for tag in *b"2CZ" {
            answer(&mut replies, tag);
        }
        assert!(replies.can_release());
    }

    // A Sync answered while the next unit is half sent: the rest of that unit must reach the same backend.
    #[test]
    fn a_half_sent_unit_behind_a_sync_holds_the_backend() {
        let mut replies = ExpectedReplies::default();
        client(&mut replies, &[Parse, Sync, Parse]);
        for tag in *b"1Z1" {
            answer(&mut replies, tag);
        }
        assert!(replies.is_empty() && !replies.can_release());
        client(&mut replies, &[Sync]);
        answer(&mut replies, b'Z');
        assert!(replies.can_release());
    }

    // After an error the server reads up to the Sync and answers nothing before it.
    #[test]
    fn an_error_drops_a_query_that_was_sent_before_the_sync() {
        let mut replies = ExpectedReplies::default();
        client(&mut replies, &[Parse, Query, Sync]);
        let mut dropped = Vec::new();
        replies.answer(b'E', None, &mut dropped).unwrap();
        assert_eq!(dropped.iter().map(|e| e.expect).collect::<Vec<_>>(), [Parse, Query]);
        answer(&mut replies, b'Z');
        assert!(replies.can_release());
    }

    // A simple Query behind a failed unit without Sync is dropped by the server too: no answer to it will come.
    #[test]
    fn after_an_error_nothing_counts_until_the_delayed_sync() {
        let mut replies = ExpectedReplies::default();
        client(&mut replies, &[Bind]);
        answer(&mut replies, b'E');
        assert!(!replies.can_release());
        client(&mut replies, &[Execute, Query]);
        assert!(replies.is_empty() && !replies.can_release());
        client(&mut replies, &[Sync]);
        answer(&mut replies, b'Z');
        assert!(replies.can_release());
    }

    // A Sync sent ahead of COPY data is swallowed by the COPY: one that is counted holds the backend for ever.
    #[test]
    fn a_sync_sent_ahead_of_copy_data_is_swallowed_by_the_copy() {
        let mut replies = ExpectedReplies::default();
        client(&mut replies, &[Bind, Execute, Sync, CopyEnd, Sync]);
        for tag in *b"2GCZ" {
            answer(&mut replies, tag);
        }
        assert!(replies.can_release());
    }

    #[test]
    fn a_sync_while_copying_in_is_swallowed() {
        let mut replies = ExpectedReplies::default();
        client(&mut replies, &[Bind, Execute]);
        answer(&mut replies, b'2');
        answer(&mut replies, b'G');
        client(&mut replies, &[Sync, CopyEnd, Sync]);
        answer(&mut replies, b'C');
        assert!(!replies.can_release());
        answer(&mut replies, b'Z');
        assert!(replies.can_release());
    }

    // A COPY that fails after a Sync was sent into it leaves the number of ReadyForQuery open.
    #[test]
    fn a_copy_done_behind_a_failed_copy_does_not_hold_the_backend() {
        let mut replies = ExpectedReplies::default();
        client(&mut replies, &[Query]);
        answer(&mut replies, b'G');
        answer(&mut replies, b'E');
        client(&mut replies, &[CopyEnd]);
        answer(&mut replies, b'Z');
        assert!(replies.can_release());
        client(&mut replies, &[CopyEnd]);
        assert!(replies.can_release());
    }

    // Its client waits for the ReadyForQuery of a Sync that nobody will answer.
    // A message of another kind is not read inside a COPY, so the Sync and the CopyEnd behind it are not, either.
    #[test]
    fn what_follows_another_message_is_not_inside_the_copy() {
        for head in [Query, Execute] {
            let mut replies = ExpectedReplies::default();
            client(&mut replies, &[head]);
            answer(&mut replies, b'G');
            client(&mut replies, &[Close, Sync, Query, CopyEnd]);
            let is_extended = head.is_extended();
            answer(&mut replies, b'E');
            if !is_extended {
                answer(&mut replies, b'Z');
                answer(&mut replies, b'3');
            }
            answer(&mut replies, b'Z');
            answer(&mut replies, b'G');
            answer(&mut replies, b'C');
            answer(&mut replies, b'Z');
            assert!(replies.can_release() && !replies.is_doubtful());
        }
        let mut pipelined = ExpectedReplies::default();
        client(&mut pipelined, &[Query, Close, Sync, Query, CopyEnd]);
        for tag in *b"GEZ3ZGCZ" {
            answer(&mut pipelined, tag);
        }
        assert!(pipelined.can_release() && !pipelined.is_doubtful());
    }

    #[test]
    fn a_copy_that_has_swallowed_the_last_sync_has_a_rest() {
        let mut replies = ExpectedReplies::default();
        client(&mut replies, &[Bind, Execute, Sync]);
        answer(&mut replies, b'2');
        assert_eq!(replies.copy_rest(), None);
        answer(&mut replies, b'G');
        assert_eq!(replies.copy_rest(), Some(CopyRest::Data));
        client(&mut replies, &[CopyEnd]);
        assert_eq!(replies.copy_rest(), Some(CopyRest::Sync));
        client(&mut replies, &[Sync]);
        assert_eq!(replies.copy_rest(), None);
    }

    // Flush is answered without a ReadyForQuery: the implicit transaction stays open until Sync.
    #[test]
    fn an_answered_flush_without_sync_holds_the_backend() {
        let mut replies = ExpectedReplies::default();
        client(&mut replies, &[Parse, DescribeStatement]);
        for tag in *b"1tT" {
            answer(&mut replies, tag);
        }
        assert!(replies.is_empty() && !replies.can_release());
    }

    #[test]
    fn an_answer_to_nothing_is_refused() {
        let mut replies = ExpectedReplies::<u32>::default();
        assert!(replies.answer(b'C', None, &mut Vec::new()).is_err());
        client(&mut replies, &[Parse]);
        assert!(replies.answer(b'2', None, &mut Vec::new()).is_err());
    }

    #[test]
    fn our_own_answers_wait_for_their_place() {
        let mut replies = ExpectedReplies::default();
        client(&mut replies, &[Bind]);
        replies.push(Synthetic, Origin::Client, Some(7));
        client(&mut replies, &[Sync]);
        assert!(replies.pop_synthetic().is_none());
        answer(&mut replies, b'2');
        assert_eq!(replies.pop_synthetic().unwrap().action, Some(7));
    }

    /// A message of the model's client; the flag: the server fails at it.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Sent {
        Query(Run),
        Call(bool),
        Extended(Expect, bool),
        Execute(Run),
        Sync,
        Flush,
        CopyData,
        CopyEnd,
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Run {
        Rows,
        Fails,
        Copies,
        FailsAfterData,
    }

    /// `PostgresMain` reduced to what it reads and answers.
    #[derive(Default)]
    struct Server {
        skipping: bool,
        copy: Option<(Sent, Run)>,
    }

    impl Server {
        fn read(&mut self, message: Sent) -> &'static [u8] {
            if let Some((starter, run)) = self.copy {
                let extended = matches!(starter, Sent::Execute(_));
                return match message {
                    Sent::Sync | Sent::Flush => b"",
                    Sent::CopyData if run == Run::FailsAfterData => {
                        self.copy = None;
                        self.skipping = extended;
                        if extended { b"E" } else { b"EZ" }
                    }
                    Sent::CopyData => b"",
                    Sent::CopyEnd => {
                        self.copy = None;
                        if extended { b"C" } else { b"CZ" }
                    }
                    _ => unreachable!("the client is well behaved"),
                };
            }
            if self.skipping && message != Sent::Sync {
                return b"";
            }
            match message {
                Sent::Sync => {
                    self.skipping = false;
                    b"Z"
                }
                Sent::Flush | Sent::CopyData | Sent::CopyEnd => b"",
                Sent::Query(Run::Rows) => b"TDCTDDCZ",
                Sent::Query(Run::Fails) => b"TDEZ",
                Sent::Call(false) => b"VZ",
                Sent::Call(true) => b"EZ",
                Sent::Query(run) => {
                    self.copy = Some((message, run));
                    b"G"
                }
                Sent::Execute(Run::Rows) => b"DDC",
                Sent::Execute(run @ (Run::Copies | Run::FailsAfterData)) => {
                    self.copy = Some((message, run));
                    b"G"
                }
                Sent::Execute(Run::Fails) | Sent::Extended(_, true) => {
                    self.skipping = true;
                    b"E"
                }
                Sent::Extended(expect, false) => match expect {
                    Parse => b"1",
                    Bind => b"2",
                    DescribeStatement => b"tT",
                    DescribePortal => b"n",
                    _ => b"3",
                },
            }
        }
    }

    fn unit() -> impl Strategy<Value = Vec<Sent>> {
        use Run::FailsAfterData;
        let fails = prop::bool::weighted(0.1);
        let copy = prop::sample::select(vec![Run::Copies, FailsAfterData]);
        let extended = prop_oneof![
            5 => (prop::sample::select(vec![Parse, Bind, DescribeStatement, DescribePortal, Close]), fails)
                .prop_map(|(e, f)| Sent::Extended(e, f)),
            2 => Just(Sent::Execute(Run::Rows)),
            1 => Just(Sent::Execute(Run::Fails)),
            1 => Just(Sent::Query(Run::Rows)),
            1 => Just(Sent::Flush),
            1 => Just(Sent::CopyEnd),
        ];
        prop_oneof![
            2 => prop::sample::select(vec![Run::Rows, Run::Fails]).prop_map(|r| vec![Sent::Query(r)]),
            1 => fails.prop_map(|f| vec![Sent::Call(f)]),
            4 => prop::collection::vec(extended, 0..8).prop_map(|mut v| {
                v.push(Sent::Sync);
                v
            }),
            1 => (copy.clone(), 1usize..4).prop_map(|(run, data)| {
                let mut v = vec![Sent::Query(run)];
                v.extend(vec![Sent::CopyData; data]);
                v.push(Sent::CopyEnd);
                v
            }),
            1 => (prop::bool::ANY, 1usize..4, prop::bool::ANY, prop::bool::ANY).prop_map(|(query, data, early, call)| {
                // Behind data at which it fails, a COPY needs no end: whatever comes is for the server to judge.
                let mut v = vec![if query { Sent::Query(FailsAfterData) } else { Sent::Execute(FailsAfterData) }];
                v.extend(early.then_some(Sent::Sync));
                v.extend(vec![Sent::CopyData; data]);
                v.push(if query && call { Sent::Call(false) } else { Sent::Extended(Close, false) });
                v.push(Sent::Sync);
                v
            }),
            1 => (copy, prop::bool::ANY, 1usize..4).prop_map(|(run, early, data)| {
                let mut v = vec![Sent::Extended(Bind, false), Sent::Execute(run)];
                v.extend(early.then_some(Sent::Sync));
                v.extend(vec![Sent::CopyData; data]);
                v.extend([Sent::CopyEnd, Sent::Sync]);
                v
            }),
        ]
    }

    fn push(replies: &mut ExpectedReplies<u32>, message: Sent, number: u32) {
        let expect = match message {
            Sent::Query(_) => Query,
            Sent::Call(_) => FunctionCall,
            Sent::Extended(expect, _) => expect,
            Sent::Execute(_) => Execute,
            Sent::Sync => Sync,
            Sent::CopyEnd => CopyEnd,
            Sent::Flush | Sent::CopyData => return,
        };
        replies.push(expect, Origin::Client, Some(number));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        /// The replies agree with the server for any pipeline of a well-behaved client, and for any order of sending,
        /// answering and reading: every answer is expected, and the backend can be released exactly when the server
        /// owes nothing.
        #[test]
        fn the_replies_agree_with_the_server(
            units in prop::collection::vec(unit(), 1..12),
            order in prop::collection::vec(0u8..3, 1..400),
        ) {
            let messages: Vec<Sent> = units.into_iter().flatten().collect();
            let (mut replies, mut server) = (ExpectedReplies::<u32>::default(), Server::default());
            let (mut wire_in, mut wire_out) = (VecDeque::new(), VecDeque::new());
            let mut to_send = messages.iter().copied().enumerate().collect::<VecDeque<_>>();
            let mut order = order.into_iter().chain((0..3).cycle());
            while !(to_send.is_empty() && wire_in.is_empty() && wire_out.is_empty()) {
                match order.next().unwrap() {
                    0 => if let Some((number, message)) = to_send.pop_front() {
                        push(&mut replies, message, number as u32);
                        wire_in.push_back(message);
                    },
                    1 => if let Some(message) = wire_in.pop_front() {
                        wire_out.extend(server.read(message).iter().copied());
                    },
                    _ => if let Some(tag) = wire_out.pop_front() {
                        let status = (tag == b'Z').then_some(TransactionStatus::Idle);
                        let result = replies.answer(tag, status, &mut Vec::new());
                        prop_assert!(result.is_ok(), "{:?} at {:?} of {:?}", result, replies, messages);
                    },
                }
                let owed = !wire_out.is_empty() || server.skipping || server.copy.is_some()
                    || wire_in.iter().any(|m| !matches!(m, Sent::Flush | Sent::CopyData | Sent::CopyEnd));
                prop_assert!(!(owed && replies.can_release() && !replies.is_doubtful()), "released early: {:?}", messages);
            }
            prop_assert!(replies.can_release(), "never released: {:?} {:?}", replies, messages);
        }
    }
}

//! The words that matter to us, each as one integer that `match` can take.

/// A word of up to 16 bytes folded to lower case and packed; zero for a longer one.
#[inline]
pub(super) const fn keyword(word: &[u8]) -> u128 {
    if word.len() > 16 {
        return 0;
    }
    let mut folded = 0;
    let mut at = 0;
    while at < word.len() {
        folded = folded << 8 | word[at].to_ascii_lowercase() as u128;
        at += 1;
    }
    folded
}

macro_rules! keywords {
    ($($word:ident)*) => { $(pub(super) const $word: u128 = keyword(stringify!($word).as_bytes());)* };
}

keywords! {
    ABORT ALL ALTER ANALYSE ANALYZE AND AS ATOMIC AUTHORIZATION BEGIN BOOL BOOLEAN CALL CAST CHAIN CHARACTER
    CHARACTERISTICS CLOSE COMMIT COMMITTED CONSTRAINTS CONTENT COPY CREATE CURRENT CURRENT_SETTING DEALLOCATE
    DECLARE DEFAULT DEFERRABLE DELETE DISCARD DO DOCUMENT DROP END EXECUTE EXPLAIN FALSE FROM FUNCTION GLOBAL HOLD
    INSERT INTERVAL INTO ISOLATION LEVEL LISTEN LOAD LOCAL MERGE NAMES NO NOT NOTIFY NULL ONLY OPTION OR PG_CATALOG
    PLANS PREPARE PREPARED PROCEDURE READ RELEASE REPEATABLE REPLACE RESET ROLE ROLLBACK SAVEPOINT SCHEMA SELECT
    SEQUENCES SERIALIZABLE SESSION SET START TABLE TEMP TEMPORARY TEXT TIME TO TRANSACTION TRUE UESCAPE UNCOMMITTED
    UNLISTEN UNLOGGED UPDATE VALUES VARCHAR VARYING VERBOSE WITH WORK WRITE XML ZONE
}

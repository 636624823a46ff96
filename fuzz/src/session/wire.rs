//! The script on its sockets, and the reading of what came.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::yield_now;

use super::server::{After, Session, frame};

/// Lets the other tasks go on.
pub(crate) async fn rounds(count: usize) {
    for _ in 0..count {
        yield_now().await;
    }
}

/// Serves whoever connects. `cut`: how its answers are cut to pieces.
pub(crate) async fn serve(listener: UnixListener, junk_kind: usize, cut: usize) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::task::spawn_local(async move {
            let _ = session(stream, junk_kind, cut).await;
        });
    }
}

async fn session(mut stream: UnixStream, junk_kind: usize, cut: usize) -> io::Result<()> {
    loop {
        let length = stream.read_u32().await?;
        let mut packet = vec![0; length as usize - 4];
        stream.read_exact(&mut packet).await?;
        match packet.first_chunk() {
            Some(&[4, 210, 22, 47]) => stream.write_all(b"N").await?,
            Some(&[0, 3, ..]) => break,
            // A cancel comes too late.
            _ => return Ok(()),
        }
    }
    let parameters = [
        &b"server_version\x0015.0\0"[..],
        b"server_encoding\0UTF8\0",
        b"client_encoding\0UTF8\0",
        b"standard_conforming_strings\0on\0",
    ];
    let parameters = parameters.map(|parameter| frame(b'S', parameter)).concat();
    let welcome = [frame(b'R', &[0; 4]), parameters, frame(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]), frame(b'Z', b"I")];
    stream.write_all(&welcome.concat()).await?;
    let mut script = Session::new(junk_kind);
    let mut out = Vec::new();
    loop {
        let tag = stream.read_u8().await?;
        let mut body = vec![0; stream.read_u32().await? as usize - 4];
        stream.read_exact(&mut body).await?;
        out.clear();
        let after = script.message(tag, &body, &mut out);
        for piece in out.chunks(pieces(cut)) {
            stream.write_all(piece).await?;
            if cut > 0 {
                yield_now().await;
            }
        }
        if after == After::Closes {
            return Ok(());
        }
    }
}

/// Bytes of one write.
fn pieces(cut: usize) -> usize {
    [usize::MAX, 4096, 1024, 4100, 600, 333, 5000][cut]
}

/// What can be told apart in the answers to a client: each message with what of it does not depend on names that
/// pgweir gives.
pub(crate) fn tokens(mut bytes: &[u8]) -> (Vec<String>, usize) {
    let mut tokens = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let Some(body) = length.checked_sub(4).and_then(|length| rest.get(..length)) else { break };
        bytes = &rest[body.len()..];
        let tag = char::from(head[0]);
        tokens.push(match tag {
            // Parameters and notifications come when they like.
            'S' | 'A' => continue,
            'E' | 'N' => format!("{tag}{}", sqlstate(body)),
            'D' => format!("D{}", body.len()),
            _ => format!("{tag}{}", body.escape_ascii()),
        });
    }
    (tokens, bytes.len())
}

/// In a failed transaction the server and pgweir may name the one or the other reason.
fn sqlstate(fields: &[u8]) -> String {
    let field = fields.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"C"));
    let code = String::from_utf8_lossy(field.unwrap_or_default()).into_owned();
    match &*code {
        "25P02" | "26000" | "34000" => "2xxxx".to_owned(),
        // Nobody deserves it here; why it came is in its text.
        "08P01" => String::from_utf8_lossy(fields).into_owned(),
        _ => code,
    }
}

use std::{io::Write as _, sync::Arc};

use flate2::{Compression, write::GzEncoder};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use http_body::Frame;
use proptest::prelude::*;
use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::*;
use crate::accept::{DoorCounts, DoorLedger, DoorReason, Unanswered};

/// A body fed frame by frame; its end is a real one unless the sender "resets" it.
struct Fed {
    frames: mpsc::UnboundedReceiver<Option<Bytes>>,
    ended: bool,
}

impl Body for Fed {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        match std::task::ready!(self.frames.poll_recv(cx)) {
            Some(Some(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(None) => Poll::Ready(Some(Err(std::io::Error::other("stream reset")))),
            None => {
                self.ended = true;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

struct Case {
    ledger: Arc<DoorLedger>,
    admission: Admission,
    feed: Option<mpsc::UnboundedSender<Option<Bytes>>>,
    message: LocalBoxFuture<'static, Result<(Bytes, Admitted), Refusal>>,
}

const LIMIT: usize = 1 << 20;

fn case(packing: Packing, in_flight_max: usize) -> Case {
    case_with(packing, in_flight_max, LIMIT)
}

fn case_with(packing: Packing, in_flight_max: usize, max_request_bytes: usize) -> Case {
    let (ledger, admission) = (Arc::new(DoorLedger::default()), Admission::new(in_flight_max));
    let (feed, frames) = mpsc::unbounded_channel();
    let arrival = ledger.received(&Unanswered::default());
    let limits = RequestLimits { max_request_bytes, ..RequestLimits::default() };
    let inner = Fed { frames, ended: false };
    let charging = admission.clone();
    let message = Box::pin(async move {
        let buffers = Buffers::default();
        AdmittedBody::new(inner, arrival, packing, &charging, limits, &buffers).message().await
    });
    Case { ledger, admission, feed: Some(feed), message }
}

impl Case {
    fn feed(&self, bytes: impl Into<Bytes>) {
        self.feed.as_ref().unwrap().send(Some(bytes.into())).unwrap();
    }

    /// Reads what was fed, which is not all.
    fn reads_on(&mut self) {
        assert!((&mut self.message).now_or_never().is_none(), "it is over");
    }

    /// The message, which ends with what was fed.
    async fn rest(&mut self) -> Result<(Bytes, Admitted), Status> {
        self.feed = None;
        Ok((&mut self.message).await?)
    }

    async fn refused(&mut self) -> (Code, String) {
        let status = self.rest().await.unwrap_err();
        assert_eq!(self.admission.in_flight(), 0);
        (status.code(), status.message().to_owned())
    }

    fn counts(&self) -> DoorCounts {
        let counts = self.ledger.counts();
        assert!(counts.balances(), "{counts:?}");
        counts
    }

    fn refusals(&self) -> Vec<(DoorReason, u64)> {
        let counts = self.counts();
        let by_reason = DoorReason::ALL.iter().map(|&reason| (reason, counts.refused(reason).requests));
        by_reason.filter(|&(_, requests)| requests > 0).collect()
    }
}

fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    [&[flag][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

fn packed(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_message_passes_as_it_came_however_it_is_cut_and_is_handed_on_with_its_charge() {
    let message: Vec<u8> = (0..200).collect();
    let framed = framed(0, &message);
    for cut in 1..=framed.len() {
        let mut case = case(Packing::Gzip, LIMIT);
        framed.chunks(cut).for_each(|piece| case.feed(piece.to_vec()));
        let (read, admitted) = case.rest().await.unwrap();
        assert_eq!(read, message, "in pieces of {cut}");
        assert_eq!((admitted.charged.bytes(), admitted.arrival.bytes()), (200, 200));
        assert_eq!((case.admission.in_flight(), case.counts().pending.bytes), (200, 200));
    }
}

#[tokio::test]
async fn a_packed_message_is_unpacked_however_it_is_cut() {
    let message: Vec<u8> = (0..100_000u32).map(|n| (n.wrapping_mul(n) >> 5) as u8).collect();
    let wire = framed(1, &packed(&message));
    for cut in [1, 7, 4096, wire.len()] {
        let mut case = case(Packing::Gzip, LIMIT);
        wire.chunks(cut).for_each(|piece| case.feed(piece.to_vec()));
        let (read, admitted) = case.rest().await.unwrap();
        assert_eq!(read, message, "in pieces of {cut}");
        assert_eq!(admitted.charged.bytes(), message.len());
        assert_eq!(admitted.arrival.bytes(), wire.len() as u64 - 5);
    }
}

#[tokio::test]
async fn the_prefix_alone_charges_the_whole_message() {
    let mut case = case(Packing::Identity, LIMIT);
    case.feed(framed(0, &[1; 1000])[..5].to_vec());
    case.reads_on();
    assert_eq!((case.admission.in_flight(), case.counts().received.bytes), (1000, 0));
    drop(case.message);
    assert_eq!(case.admission.in_flight(), 0);
    assert_eq!(case.ledger.counts().refused(DoorReason::Disconnected).requests, 1);
}

#[tokio::test]
async fn a_declared_length_over_the_limit_is_refused_before_its_first_byte() {
    let mut case = case(Packing::Gzip, LIMIT);
    case.feed([&[0][..], &(LIMIT as u32 + 1).to_be_bytes()].concat());
    let text = "message of 1048577 bytes is larger than the limit of 1048576 bytes";
    assert_eq!(case.refused().await, (Code::ResourceExhausted, text.to_owned()));
    assert_eq!(case.refusals(), [(DoorReason::TooLarge, 1)]);
}

#[tokio::test]
async fn what_does_not_fit_beside_others_is_refused_and_not_waited_for() {
    let mut case = case(Packing::Gzip, LIMIT);
    let _others = case.admission.try_reserve(LIMIT - 100).unwrap();
    case.feed(framed(0, &[1; 101])[..6].to_vec());
    // The body goes on; the refusal does not wait for it.
    let status = Status::from((&mut case.message).await.unwrap_err());
    assert_eq!(status.message(), "1048476 of 1048576 bytes are in flight, 101 more do not fit");
    assert!(!status.details().is_empty());
    assert_eq!(case.refusals(), [(DoorReason::Admission, 1)]);
}

#[tokio::test]
async fn a_bomb_is_refused_at_the_limit() {
    let mut case = case(Packing::Gzip, 4 * LIMIT);
    case.feed(framed(1, &packed(&vec![0; 20 * LIMIT])));
    let text = "message unpacks to more than the limit of 1048576 bytes";
    assert_eq!(case.refused().await, (Code::ResourceExhausted, text.to_owned()));
    assert_eq!(case.refusals(), [(DoorReason::TooLarge, 1)]);
}

#[tokio::test]
async fn unpacking_gives_other_requests_of_the_thread_their_turn() {
    let mut case = case_with(Packing::Gzip, 64 * LIMIT, 16 * LIMIT);
    case.feed(framed(1, &packed(&vec![0; 8 * LIMIT])));
    case.feed = None;
    let mut turns = 1;
    while (&mut case.message).now_or_never().is_none() {
        turns += 1;
    }
    assert!((7..=9).contains(&turns), "{turns} turns");
}

#[tokio::test]
async fn what_is_no_unary_request_is_invalid() {
    let message = framed(0, b"message");
    let texts = [
        (vec![], "request has no message"),
        (message[..4].to_vec(), "request ends within its length prefix"),
        (message[..8].to_vec(), "message ends after 3 of 7 bytes"),
        (framed(1, b"message")[..8].to_vec(), "message ends after 3 of 7 bytes"),
        ([&message[..], b"!"].concat(), "request goes on after its message"),
        ([&message[..], &message[..]].concat(), "request goes on after its message"),
        ([&framed(1, &packed(b"a"))[..], b"!"].concat(), "request goes on after its message"),
        (framed(2, b"message"), "compressed flag 2 is neither 0 nor 1"),
        (framed(1, b"a message as it is"), "message is no valid gzip: it is corrupt"),
        (framed(1, b""), "message is no valid gzip: it ends early"),
    ];
    for (bytes, text) in texts {
        let mut case = case(Packing::Gzip, LIMIT);
        if !bytes.is_empty() {
            case.feed(bytes);
        }
        assert_eq!(case.refused().await, (Code::InvalidArgument, text.to_owned()));
        assert_eq!(case.refusals(), [(DoorReason::Invalid, 1)]);
    }
}

#[tokio::test]
async fn an_empty_message_is_complete_with_its_prefix() {
    let mut case = case(Packing::Identity, LIMIT);
    case.feed(framed(0, b""));
    let (read, admitted) = case.rest().await.unwrap();
    assert_eq!((read.len(), admitted.charged.bytes()), (0, 0));
}

#[tokio::test]
async fn a_packed_message_needs_its_encoding_named() {
    let mut case = case(Packing::Identity, LIMIT);
    case.feed(framed(1, &packed(b"message")));
    let text = "message is compressed, but grpc-encoding names no compression";
    assert_eq!(case.refused().await, (Code::Internal, text.to_owned()));
}

#[tokio::test]
async fn a_body_of_a_declared_length_is_complete_with_its_end_and_nothing_comes_behind_it() {
    for (behind, taken) in [(&b""[..], true), (b"more", false)] {
        let (ledger, admission, buffers) =
            (Arc::new(DoorLedger::default()), Admission::new(LIMIT), Buffers::default());
        let (feed, frames) = mpsc::unbounded_channel();
        let arrival = ledger.received(&Unanswered::default());
        let (inner, limits) = (Fed { frames, ended: false }, RequestLimits::default());
        let body = AdmittedBody::new(inner, arrival, Packing::Identity, &admission, limits, &buffers);
        let mut whole = Box::pin(body.whole(Some(5)));
        feed.send(Some(Bytes::from_static(b"whole"))).unwrap();
        assert!((&mut whole).now_or_never().is_none(), "its end has not come");
        if !behind.is_empty() {
            feed.send(Some(Bytes::from_static(behind))).unwrap();
        }
        drop(feed);
        match whole.await {
            Ok((message, _)) => assert_eq!((&*message, taken), (&b"whole"[..], true)),
            Err(refusal) => assert_eq!((refusal, taken), (Refusal::Trailing, false)),
        }
        assert_eq!(admission.in_flight(), 0);
    }
}

/// A stream that its sender reset: what has come, and then as if it were over.
struct Reset(Option<Bytes>);

impl Body for Reset {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_stream_that_was_reset_is_not_complete_however_whole_it_looks() {
    let (ledger, admission, buffers) =
        (Arc::new(DoorLedger::default()), Admission::new(LIMIT), Buffers::default());
    let body = |message: Vec<u8>| {
        let arrival = ledger.received(&Unanswered::default());
        let limits = RequestLimits::default();
        AdmittedBody::new(
            Reset(Some(message.into())),
            arrival,
            Packing::Identity,
            &admission,
            limits,
            &buffers,
        )
    };
    for refusal in [
        body(framed(0, b"whole")).message().await.unwrap_err(),
        body(framed(0, b"whole")[..7].to_vec()).message().await.unwrap_err(),
        body(b"whole".to_vec()).whole(None).await.unwrap_err(),
    ] {
        assert_eq!(refusal, Refusal::Disconnected("stream was reset".to_owned()));
    }
    let counts = ledger.counts();
    assert_eq!((counts.refused(DoorReason::Disconnected).requests, counts.pending.requests), (3, 0));
    assert_eq!(admission.in_flight(), 0);
}

#[tokio::test]
async fn a_reset_in_the_middle_counts_as_disconnected() {
    let mut case = case(Packing::Identity, LIMIT);
    case.feed(framed(0, &[1; 1000])[..100].to_vec());
    case.feed.as_ref().unwrap().send(None).unwrap();
    let (code, text) = case.refused().await;
    assert_eq!((code, text.as_str()), (Code::Unavailable, "sender gave up: stream reset"));
    let counts = case.counts();
    assert_eq!((counts.refused(DoorReason::Disconnected).bytes, counts.pending.requests), (95, 0));
}

proptest! {
    #[test]
    fn whatever_comes_is_accounted_for_and_nothing_stays_charged(
        message in prop::collection::vec(any::<u8>(), 0..2000),
        pack in any::<bool>(),
        flag in prop_oneof![4 => Just(None), 1 => any::<u8>().prop_map(Some)],
        change in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        cut in 1usize..700,
        end in any::<prop::sample::Index>(),
        whole in any::<bool>(),
        in_flight_max in 500usize..5000,
    ) {
        let sent = if pack { packed(&message) } else { message.clone() };
        let mut wire = framed(flag.unwrap_or(u8::from(pack)), &sent);
        if let Some((at, byte)) = change {
            let at = at.index(wire.len());
            wire[at] = byte;
        }
        if !whole {
            wire.truncate(end.index(wire.len()));
        }
        let mut case = case(Packing::Gzip, in_flight_max);
        wire.chunks(cut).for_each(|piece| case.feed(piece.to_vec()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let read = runtime.block_on(case.rest());
        if let Ok((read, admitted)) = &read {
            prop_assert_eq!(admitted.charged.bytes(), read.len());
            prop_assert_eq!(case.admission.in_flight(), read.len());
            if change.is_none() && flag.is_none() {
                prop_assert_eq!(&read[..], &message[..]);
            }
        }
        drop(read);
        let counts = case.counts();
        prop_assert_eq!((counts.pending.requests, counts.refused_total().requests), (0, 1));
        prop_assert!(counts.received.bytes <= wire.len() as u64);
        prop_assert_eq!(case.admission.in_flight(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_comes_too_slowly_is_refused_after_the_timeout() {
    let mut case = case(Packing::Identity, LIMIT);
    case.feed(framed(0, &[1; 1000])[..100].to_vec());
    case.reads_on();
    assert_eq!(case.counts().received.bytes, 95);
    tokio::time::advance(Duration::from_secs(20)).await;
    case.feed(vec![1; 100]);
    case.reads_on();
    assert_eq!(case.counts().received.bytes, 195);
    let status = Status::from((&mut case.message).await.unwrap_err());
    let text = "request's body came too slowly: 195 bytes in 30s";
    assert_eq!((status.code(), status.message()), (Code::DeadlineExceeded, text));
    assert_eq!(case.refusals(), [(DoorReason::SlowBody, 1)]);
    assert_eq!(case.admission.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_keeps_the_pace_may_take_longer_and_then_no_pause() {
    let mut case = case(Packing::Identity, LIMIT);
    case.feed(framed(0, &vec![1; LIMIT])[..5].to_vec());
    case.reads_on();
    for n in 1..=10 {
        tokio::time::advance(Duration::from_secs(20)).await;
        case.feed(vec![1; 20 * 1024]);
        case.reads_on();
        assert_eq!(case.counts().received.bytes, n * 20 * 1024);
    }
    let status = Status::from((&mut case.message).await.unwrap_err());
    let text = "request's body came too slowly: 204800 bytes in 230s";
    assert_eq!((status.code(), status.message()), (Code::DeadlineExceeded, text));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_keeps_the_pace_holds_its_reservation_for_ten_minutes_and_the_timeout_at_most() {
    let mut case = case(Packing::Identity, LIMIT);
    case.feed(framed(0, &vec![1; LIMIT])[..5].to_vec());
    let begun = Instant::now();
    let refusal = loop {
        case.reads_on();
        tokio::time::advance(Duration::from_secs(10)).await;
        case.feed(vec![1; 10 * 1024]);
        if let Some(read) = (&mut case.message).now_or_never() {
            break read.unwrap_err();
        }
    };
    assert_eq!((Status::from(refusal).code(), begun.elapsed().as_secs()), (Code::DeadlineExceeded, 630));
    assert_eq!(case.admission.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_byte_a_second_is_refused_when_the_timeout_is_over() {
    let mut case = case(Packing::Identity, LIMIT);
    case.feed(framed(0, &[1; 1000])[..5].to_vec());
    case.reads_on();
    let begun = Instant::now();
    let refusal = loop {
        tokio::time::advance(Duration::from_secs(1)).await;
        case.feed(vec![1]);
        // Its own second may be its last: the byte is seen first.
        if let Some(read) = (&mut case.message).now_or_never() {
            break read.unwrap_err();
        }
    };
    assert_eq!((Status::from(refusal).code(), begun.elapsed().as_secs()), (Code::DeadlineExceeded, 30));
    assert_eq!(case.counts().received.bytes, 30);
}

//! The event loop: priorities, timers, mail, descriptors, and sleep that costs nothing.

mod common;

use cl::runtime::{
    Core, Interest, LoopStats, Policy, Priority, Readiness, RuntimeConfig, Service, TimerId, Token, run,
    spawn,
};
use cl::{Endpoint, EndpointConfig, Received};
use cl_base::{PeerId, Time};
use common::{each_transport, loopback};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const ME: PeerId = PeerId::new(1, 0);
const PEER: PeerId = PeerId::new(2, 0);

fn without_endpoint() -> RuntimeConfig {
    RuntimeConfig::new(None)
}

/// The processor time this thread has used.
fn cpu_time() -> Duration {
    let line = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(line.split(' ').next().unwrap().parse().unwrap())
}

/// Sends every message back; stops on an empty one, or after its idle time if it has one.
#[derive(Debug, Default)]
struct Echo {
    idle_for: Option<Duration>,
    cpu: Duration,
    stats: LoopStats,
}

impl Service for Echo {
    type Mail = ();

    fn start(&mut self, cx: &mut Core<()>) {
        if let Some(idle) = self.idle_for {
            cx.set_timer(cx.now() + idle, TimerId(0));
        }
        self.cpu = cpu_time();
    }

    fn on_message(&mut self, cx: &mut Core<()>, received: Received) {
        if received.buf.is_empty() {
            cx.stop();
        }
        cx.endpoint_mut().send_to(received.from, received.addr, received.buf).unwrap();
    }

    fn on_timer(&mut self, cx: &mut Core<()>, _id: TimerId) {
        self.cpu = cpu_time() - self.cpu;
        self.stats = cx.stats();
        cx.stop();
    }
}

#[test]
fn a_service_echoes_messages_of_every_length_under_every_policy_and_transport() {
    let policies = [Policy::Park, Policy::SpinThenPark(Duration::from_micros(50)), Policy::Spin];
    for transport in each_transport() {
        for policy in policies {
            let endpoint = EndpointConfig { transport, ..EndpointConfig::new(PEER, loopback()) };
            let config = RuntimeConfig { policy, ..RuntimeConfig::new(Some(endpoint)) };
            let echo = spawn("echo", config, |_| Echo::default()).unwrap();
            let mut client = Endpoint::open(EndpointConfig::new(ME, loopback())).unwrap();
            client.resolve(PEER, echo.local_addr().unwrap());
            let max = (1 << 20).min(client.receive_buffer() / 4);
            let lens = [1, 1000, 64_968, 64_969, 200_000, 1 << 20, 0];
            for (round, len) in (0..6).flat_map(|r| lens.map(|len| (r, len))) {
                if len > max || (len == 0 && round < 5) {
                    continue;
                }
                // Every other round lets the service fall asleep first.
                if round % 2 == 1 {
                    std::thread::sleep(Duration::from_micros(500));
                }
                let contents: Vec<u8> = (0..len).map(|i| (i + round) as u8).collect();
                let ping = client.alloc_copy(&contents).unwrap();
                client.send(PEER, ping).unwrap();
                let deadline = Instant::now() + Duration::from_secs(10);
                let pong = loop {
                    if let Some(received) = client.poll() {
                        break received;
                    }
                    assert!(Instant::now() < deadline, "{transport:?} {policy:?} round {round} len {len}");
                };
                assert_eq!(pong.buf[..], contents[..]);
            }
            echo.join().unwrap();
        }
    }
}

#[test]
fn an_idle_thread_sleeps() {
    for transport in each_transport() {
        let endpoint = EndpointConfig { transport, ..EndpointConfig::new(PEER, loopback()) };
        let idle_for = Some(Duration::from_millis(500));
        let echo = run(Echo { idle_for, ..Echo::default() }, RuntimeConfig::new(Some(endpoint))).unwrap();
        assert!(echo.cpu < Duration::from_millis(5), "{transport:?}: {:?} of processor time", echo.cpu);
        assert!(echo.stats.parks <= 3, "{transport:?}: {} parks for one timer", echo.stats.parks);
    }
}

/// Notes what happens, in order.
#[derive(Default)]
struct Diary {
    entries: Vec<String>,
    /// Events until it stops.
    left: usize,
    stream: Option<(UnixStream, Token)>,
    writer: Option<UnixStream>,
    times: Vec<(Time, u64)>,
    script: Option<fn(&mut Diary, &mut Core<&'static str>)>,
}

impl Diary {
    fn run(left: usize, script: fn(&mut Diary, &mut Core<&'static str>)) -> Diary {
        run(Diary { left, script: Some(script), ..Diary::default() }, without_endpoint()).unwrap()
    }

    fn note(&mut self, cx: &mut Core<&'static str>, what: String) {
        self.entries.push(what);
        self.left -= 1;
        if self.left == 0 {
            cx.stop();
        }
    }
}

impl Service for Diary {
    type Mail = &'static str;

    fn start(&mut self, cx: &mut Core<Self::Mail>) {
        if let Some(script) = self.script {
            script(self, cx);
        }
    }

    fn on_message(&mut self, _cx: &mut Core<Self::Mail>, received: Received) {
        panic!("no endpoint, and yet {received:?}");
    }

    fn on_timer(&mut self, cx: &mut Core<Self::Mail>, id: TimerId) {
        self.times.push((cx.now(), id.0));
        self.note(cx, format!("timer {}", id.0));
    }

    fn on_ready(&mut self, cx: &mut Core<Self::Mail>, token: Token, readiness: Readiness) {
        let (stream, expected) = self.stream.as_mut().unwrap();
        assert_eq!(token, *expected);
        let mut text = [0; 16];
        let n = stream.read(&mut text).unwrap();
        let text = String::from_utf8_lossy(&text[..n]).into_owned();
        self.note(cx, format!("readable {} {text}", readiness.readable));
    }

    fn on_mail(&mut self, cx: &mut Core<Self::Mail>, mail: &'static str) {
        match mail {
            "cancel 1, set 2 again" => {
                assert!(cx.cancel_timer(TimerId(1)));
                cx.set_timer(cx.now(), TimerId(2));
            }
            "toil" => {
                // Another thread sends something urgent while this goes on.
                let mailbox = cx.mailbox();
                let helper = std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(5));
                    mailbox.send_with_priority(Priority::Urgent, "urgent").unwrap();
                });
                let start = Instant::now();
                while !cx.should_yield() {
                    assert!(start.elapsed() < Duration::from_secs(10));
                }
                cx.post(Priority::Low, "rest of the toil");
                helper.join().unwrap();
            }
            _ => {}
        }
        self.note(cx, mail.to_owned());
    }
}

#[test]
fn events_are_handled_by_priority_and_equal_ones_in_order() {
    let diary = Diary::run(6, |_, cx| {
        cx.post(Priority::Low, "low");
        cx.post(Priority::Normal, "normal 1");
        cx.mailbox().send_with_priority(Priority::High, "high").unwrap();
        cx.post(Priority::Normal, "normal 2");
        cx.set_timer_with_priority(cx.now(), TimerId(1), Priority::Urgent);
        cx.post(Priority::Urgent, "urgent");
    });
    assert_eq!(diary.entries, ["urgent", "timer 1", "high", "normal 1", "normal 2", "low"]);
}

#[test]
fn timers_expire_in_order_and_never_early() {
    let diary = Diary::run(3, |diary, cx| {
        let start = cx.now();
        diary.times.push((start, 0));
        cx.set_timer(start + Duration::from_millis(20), TimerId(20));
        cx.set_timer(start + Duration::from_micros(300), TimerId(7));
        cx.set_timer(start + Duration::from_secs(100), TimerId(5));
        cx.set_timer(start + Duration::from_millis(5), TimerId(5));
        cx.set_timer(start + Duration::from_millis(1), TimerId(1));
        assert!(cx.cancel_timer(TimerId(1)) && !cx.cancel_timer(TimerId(1)));
    });
    assert_eq!(diary.entries, ["timer 7", "timer 5", "timer 20"]);
    let start = diary.times[0].0;
    for (&(at, _), after) in diary.times[1..].iter().zip([300, 5_000, 20_000]) {
        assert!(at.saturating_since(start) >= Duration::from_micros(after));
    }
}

#[test]
fn a_timer_that_has_expired_can_still_be_cancelled_or_set_again_before_it_is_handled() {
    let diary = Diary::run(2, |_, cx| {
        cx.post(Priority::Urgent, "cancel 1, set 2 again");
        cx.set_timer(cx.now(), TimerId(1));
        cx.set_timer(cx.now(), TimerId(2));
    });
    assert_eq!(diary.entries, ["cancel 1, set 2 again", "timer 2"]);
}

#[test]
fn a_long_handler_lets_urgent_events_through() {
    let diary = Diary::run(3, |_, cx| cx.post(Priority::Low, "toil"));
    assert_eq!(diary.entries, ["toil", "urgent", "rest of the toil"]);
}

#[test]
fn mail_from_another_thread_wakes_a_sleeper() {
    let running = spawn("sleeper", without_endpoint(), |_| Diary { left: 20, ..Diary::default() }).unwrap();
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(2));
        running.mailbox().send("hello").unwrap();
    }
    assert_eq!(running.join().unwrap().entries.len(), 20);
}

#[test]
fn a_full_mailbox_hands_the_mail_back() {
    let config = RuntimeConfig { mailbox_capacity: 2, ..without_endpoint() };
    let runtime = cl::runtime::Runtime::<&'static str>::open(config).unwrap();
    let mailbox = runtime.mailbox();
    mailbox.send("1").unwrap();
    mailbox.send("2").unwrap();
    assert_eq!(mailbox.send("3").unwrap_err().0, "3");
}

#[test]
fn a_registered_descriptor_is_reported_until_it_is_deregistered() {
    let diary = Diary::run(3, |diary, cx| {
        let (mut writer, reader) = UnixStream::pair().unwrap();
        reader.set_nonblocking(true).unwrap();
        let token = cx.register(&reader, Interest::READABLE).unwrap();
        writer.write_all(b"words").unwrap();
        diary.stream = Some((reader, token));
        diary.writer = Some(writer);
        // A second one, ready and then deregistered before it is handled.
        let (mut other_writer, other) = UnixStream::pair().unwrap();
        let other_token = cx.register(&other, Interest::READABLE).unwrap();
        other_writer.write_all(b"unread").unwrap();
        std::thread::sleep(Duration::from_millis(1));
        cx.should_yield();
        cx.deregister(&other, other_token).unwrap();
        cx.post(Priority::Low, "low");
        cx.set_timer(cx.now() + Duration::from_millis(20), TimerId(0));
    });
    assert_eq!(diary.entries, ["readable true words", "low", "timer 0"]);
}

#[test]
fn a_runtime_that_cannot_be_opened_says_so_to_the_spawner() {
    let endpoint = EndpointConfig { mtu: Some(1), ..EndpointConfig::new(ME, loopback()) };
    let error = spawn("stillborn", RuntimeConfig::new(Some(endpoint)), |_| Echo::default()).unwrap_err();
    assert!(error.to_string().contains("MTU"), "{error}");
}

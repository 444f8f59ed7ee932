//! Pong waits; ping is told its address, and throws a ball. Both sleep until it comes.
use cl::{Endpoint, EndpointConfig, Received};
use cl_base::PeerId;
use std::time::{Duration, Instant};

const PING: PeerId = PeerId::new(1, 0);
const PONG: PeerId = PeerId::new(2, 0);

fn receive(endpoint: &mut Endpoint, limit: Duration) -> std::io::Result<Option<Received>> {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if let Some(received) = endpoint.poll() {
            return Ok(Some(received));
        }
        endpoint.park(Some(end.saturating_duration_since(Instant::now())))?;
    }
    Ok(None)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(pong) = std::env::args().nth(1) else {
        let mut me = Endpoint::open(EndpointConfig::new(PONG, "127.0.0.1:0".parse()?))?;
        println!("for a minute; in another terminal the same command and: -- {}", me.local_addr());
        while let Some(mut ball) = receive(&mut me, Duration::from_secs(60))? {
            ball.buf.iter_mut().skip(1).take(1).for_each(|letter| *letter = b'o');
            me.send_to(ball.from, ball.addr, ball.buf)?;
        }
        return Ok(());
    };
    let mut me = Endpoint::open(EndpointConfig::new(PING, "127.0.0.1:0".parse()?))?;
    me.resolve(PONG, pong.parse()?);
    for _ in 0..5 {
        me.send(PONG, me.alloc_copy(b"ping")?)?;
        // It may be lost on a network: then the next one is thrown.
        let ball = receive(&mut me, Duration::from_secs(1))?;
        println!("{}", ball.map_or("lost".into(), |ball| String::from_utf8_lossy(&ball.buf).into_owned()));
    }
    Ok(())
}

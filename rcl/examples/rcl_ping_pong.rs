//! Pong waits; ping is told its address, and throws a ball. Both sleep until something happens.
use cl_base::PeerId;
use rcl::{Endpoint, EndpointConfig, Event};

const PING: PeerId = PeerId::new(1, 0);
const PONG: PeerId = PeerId::new(2, 0);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pong = std::env::args().nth(1);
    let name = if pong.is_some() { PING } else { PONG };
    let mut me = Endpoint::open(EndpointConfig::new(name, "127.0.0.1:0".parse()?))?;
    match &pong {
        Some(pong) => me.connect(PONG, pong.parse()?),
        None => println!("in another terminal the same command and: -- {}", me.local_addr()),
    }
    let mut left = 5;
    loop {
        let Some(event) = me.poll() else {
            me.park(None)?;
            continue;
        };
        match event {
            Event::Connected(peer) if name == PING => me.send(peer, me.alloc_copy(b"ping")?)?,
            Event::Message { from, .. } if name == PONG => me.send(from, me.alloc_copy(b"pong")?)?,
            Event::Message { from, buf } => {
                println!("{}", String::from_utf8_lossy(&buf));
                left -= 1;
                if left > 0 { me.send(from, me.alloc_copy(b"ping")?)? } else { me.close(from) }
            }
            Event::Closed(_, why) => break println!("closed: {why:?}"),
            _ => {}
        }
    }
    Ok(())
}

//! The application's memory as the source and the place of announced messages.

use crate::memory::Area;
use rcl::{Sink, Source};

/// Memory that is sent: as it lies if it is in one piece, otherwise copied together.
pub(super) fn source(area: &Area) -> Box<dyn Source> {
    if area.slice(0, area.len()).is_some() {
        Box::new(Whole(*area))
    } else {
        Box::new(area.slices().collect::<Vec<_>>().concat())
    }
}

struct Whole(Area);

impl Source for Whole {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn chunk(&self, at: u64, len: usize) -> &[u8] {
        self.0.slice(at as usize, len).expect("it is in one piece, and nothing beyond it is asked for")
    }
}

/// Memory that is received into. What does not fit is thrown away.
pub(super) struct Place {
    area: Area,
    /// What lies across pieces of the area, or beyond it, and where it belongs.
    aside: Vec<u8>,
    at: usize,
}

impl Place {
    pub(super) fn new(area: Area) -> Place {
        Place { area, aside: Vec::new(), at: 0 }
    }

    /// Puts what is aside where it belongs.
    pub(super) fn settle(&mut self) {
        if !self.aside.is_empty() {
            self.area.part(self.at, self.aside.len()).write(&self.aside);
            self.aside.clear();
        }
    }
}

impl Sink for Place {
    fn place(&mut self, at: u64, len: usize) -> &mut [u8] {
        self.settle();
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        if self.area.slice(at, len).is_some() {
            return self.area.slice_mut(at, len).expect("just seen");
        }
        self.at = at;
        self.aside.resize(len, 0);
        &mut self.aside
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Iovec;

    #[test]
    fn pieces_that_lie_across_and_beyond_land_where_they_belong() {
        let mut parts = [vec![0; 5], vec![0; 3]];
        let iovecs = parts.each_mut().map(|p| Iovec { iov_base: p.as_mut_ptr().cast(), iov_len: p.len() });
        // SAFETY: the vectors outlive the area.
        #[expect(unsafe_code, reason = "it is made of addresses")]
        let area = unsafe { Area::new(iovecs.as_ptr(), 2) }.unwrap();
        let mut place = Place::new(area);
        for (at, piece) in [(0, "abc"), (3, "def"), (6, "gh"), (8, "beyond")] {
            place.place(at, piece.len()).copy_from_slice(piece.as_bytes());
        }
        place.settle();
        assert_eq!(parts, [b"abcde".to_vec(), b"fgh".to_vec()]);
        assert_eq!(source(&area).chunk(2, 5), b"cdefg");
    }
}

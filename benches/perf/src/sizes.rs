//! Lists of message sizes as people write them: `8,64,1K-64K,1M`.

use crate::SIZE_MAX;

/// Why a text names no sizes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizesError {
    /// Not a number with an optional K or M.
    #[error("{0:?} is no size: write bytes, or a number with K or M, as in 8,64,1K-64K,1M")]
    Number(String),
    /// Longer than a message may be.
    #[error("{0} bytes are more than a message may hold ({SIZE_MAX})")]
    TooLong(usize),
    /// A range that goes down, or begins at nothing, which cannot be doubled.
    #[error("{0:?} is no range: write the smaller size first, and not 0, as in 8-64K")]
    Range(String),
}

/// The sizes that `text` lists, in bytes, in its order. A range doubles from its first size to its last,
/// both included.
///
/// # Errors
/// [`SizesError`] names the part that is none.
pub fn parse(text: &str) -> Result<Vec<usize>, SizesError> {
    let mut sizes = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            None => sizes.push(one(part)?),
            Some((from, to)) => {
                let (mut size, last) = (one(from)?, one(to)?);
                if size == 0 || size > last {
                    return Err(SizesError::Range(part.to_owned()));
                }
                while size < last {
                    sizes.push(size);
                    size *= 2;
                }
                sizes.push(last);
            }
        }
    }
    Ok(sizes)
}

fn one(text: &str) -> Result<usize, SizesError> {
    let text = text.trim();
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 1 << 10),
        Some((at, 'm' | 'M')) => (&text[..at], 1 << 20),
        _ => (text, 1),
    };
    let bad = || SizesError::Number(text.to_owned());
    let size = digits.parse::<usize>().map_err(|_| bad())?.checked_mul(unit).ok_or_else(bad)?;
    if size > SIZE_MAX { Err(SizesError::TooLong(size)) } else { Ok(size) }
}

/// A size in the shortest exact form: 64, 1K, 8K, 1M.
pub fn show(size: usize) -> String {
    match size {
        0 => "0".to_owned(),
        s if s % (1 << 20) == 0 => format!("{}M", s >> 20),
        s if s % (1 << 10) == 0 => format!("{}K", s >> 10),
        s => s.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges() {
        assert_eq!(parse("8,64, 1K ,1m"), Ok(vec![8, 64, 1024, 1 << 20]));
        assert_eq!(parse("8-64"), Ok(vec![8, 16, 32, 64]));
        assert_eq!(parse("3K-10K,0"), Ok(vec![3072, 6144, 10240, 0]));
        assert_eq!(parse("16M"), Ok(vec![16 << 20]));
    }

    #[test]
    fn what_is_none_is_named() {
        for text in ["", "8,", "x", "-8", "8-", "1G", "K", "99999999999999999999", "18446744073709551615K"] {
            assert!(matches!(parse(text), Err(SizesError::Number(_))), "{text}: {:?}", parse(text));
        }
        assert_eq!(parse("17M"), Err(SizesError::TooLong(17 << 20)));
        assert_eq!(parse("64-8"), Err(SizesError::Range("64-8".into())));
        assert_eq!(parse("0-8"), Err(SizesError::Range("0-8".into())));
    }

    #[test]
    fn shown_sizes_read_back() {
        for size in [0, 1, 8, 1000, 1024, 1536, 65_000, 65_536, 1 << 20, 3 << 20] {
            assert_eq!(parse(&show(size)), Ok(vec![size]));
        }
        assert_eq!((show(8192), show(65_000)), ("8K".into(), "65000".into()));
    }
}

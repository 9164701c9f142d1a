//! Reads the symbol table of a 64-bit little-endian ELF object, as far as finding undefined symbols needs.

use anyhow::{Context, Result, bail};

const SECTION_HEADER: usize = 64;
const SYMBOL: usize = 24;
const SYMBOL_TABLE: u32 = 2;
const UNDEFINED: u16 = 0;

/// Names of the symbols that no section of the object defines.
pub(crate) fn undefined_symbols(object: &[u8]) -> Result<Vec<String>> {
    if object.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("not a 64-bit little-endian ELF object");
    }
    let count = usize::from(u16::from_le_bytes(array(object, 60)?));
    let first = offset(object, 40)?;
    let header = |index: usize| -> Result<&[u8]> { slice(object, first + index * SECTION_HEADER, SECTION_HEADER) };

    let mut undefined = Vec::new();
    for index in 0..count {
        let table = header(index)?;
        if u32::from_le_bytes(array(table, 4)?) != SYMBOL_TABLE {
            continue;
        }
        let names_header = header(u32::from_le_bytes(array(table, 40)?) as usize)?;
        let names = section(object, names_header)?;
        for symbol in section(object, table)?.chunks_exact(SYMBOL) {
            let name = name_at(names, u32::from_le_bytes(array(symbol, 0)?) as usize)?;
            if u16::from_le_bytes(array(symbol, 6)?) == UNDEFINED && !name.is_empty() {
                undefined.push(name);
            }
        }
    }
    Ok(undefined)
}

fn section<'a>(object: &'a [u8], header: &[u8]) -> Result<&'a [u8]> {
    slice(object, offset(header, 24)?, offset(header, 32)?)
}

fn name_at(names: &[u8], start: usize) -> Result<String> {
    let tail = names.get(start..).context("a symbol's name lies outside its section")?;
    let end = tail
        .iter()
        .position(|byte| *byte == 0)
        .context("a symbol's name has no end")?;
    Ok(String::from_utf8_lossy(&tail[..end]).into_owned())
}

fn offset(bytes: &[u8], at: usize) -> Result<usize> {
    Ok(usize::try_from(u64::from_le_bytes(array(bytes, at)?))?)
}

fn slice(bytes: &[u8], start: usize, length: usize) -> Result<&[u8]> {
    let end = start.checked_add(length).context("a size in the object overflows")?;
    bytes.get(start..end).context("the object is cut short")
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    Ok(slice(bytes, at, N)?.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header, three section headers (null, symbols, names), two symbols and their names.
    fn object() -> Vec<u8> {
        let (headers, symbols, names) = (64, 64 + 3 * SECTION_HEADER, 64 + 3 * SECTION_HEADER + 2 * SYMBOL);
        let mut bytes = vec![0; names];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[40] = headers as u8;
        bytes[60] = 3;
        let mut section = |index: usize, kind: u8, link: u8, start: usize, size: usize| {
            let header = &mut bytes[headers + index * SECTION_HEADER..];
            (header[4], header[40], header[24], header[25]) = (kind, link, start as u8, (start >> 8) as u8);
            header[32] = size as u8;
        };
        section(1, 2, 2, symbols, 2 * SYMBOL);
        section(2, 3, 0, names, 14);
        bytes[symbols] = 1;
        bytes[symbols + SYMBOL] = 8;
        bytes[symbols + SYMBOL + 6] = 1;
        bytes.extend(b"\0memcpy\0entry\0");
        bytes
    }

    #[test]
    fn undefined_symbols_are_named() {
        assert_eq!(undefined_symbols(&object()).unwrap(), ["memcpy"]);
    }

    #[test]
    fn a_cut_object_is_an_error() {
        let object = object();
        for length in 0..object.len() {
            assert!(undefined_symbols(&object[..length]).is_err(), "cut to {length}");
        }
    }
}

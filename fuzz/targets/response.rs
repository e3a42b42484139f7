//! See `exa_billing_fuzz::response`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| exa_billing_fuzz::response::check(data));

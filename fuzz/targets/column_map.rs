//! See `exa_billing_fuzz::column_map`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| exa_billing_fuzz::column_map::check(data));

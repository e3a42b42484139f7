//! See `exa_billing_fuzz::settings`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| exa_billing_fuzz::settings::check(data));

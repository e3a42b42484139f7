//! See `exa_billing_fuzz::batch`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| exa_billing_fuzz::batch::check(data));

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| goodstanding_fuzz::request(data));

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| goodstanding_fuzz::get_path(data));

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| job_executor_service::fuzz::log(data));

"""Every hole that was found in others, and what proves that it is not here; every point of RFC 3875 that
implementers get wrong, and its tests.

The rows are those of the project's survey of the field, one each.  Tests are named as
"path::name", a row of the shared suite as "tests/suite.py::row".  tests/test_holes.py checks that
they exist, and that a row has one or waits for a protocol that is not there yet.
"""

from __future__ import annotations

from tests.specifications import tests_in

_cgi = tests_in("tests/unit/test_cgi.py")
_cgihost_answers = tests_in("tests/cgihost/test_answers.py")
_cgihost_bodies = tests_in("tests/cgihost/test_bodies.py")
_cgihost_environment = tests_in("tests/cgihost/test_environment.py")
_cgihost_paths = tests_in("tests/cgihost/test_paths.py")
_client = tests_in("tests/test_client.py")
_cve = tests_in("tests/test_cve.py")
_cve_cgi = tests_in("tests/test_cve_cgi.py")
_fastcgi = tests_in("tests/unit/test_fastcgi.py")
_flup = tests_in("tests/peers/test_flup_defects.py")
_front = tests_in("tests/test_front.py")
_guards = tests_in("tests/pycgi/test_guards.py")
_lighttpd = tests_in("tests/interop/test_lighttpd.py")
_listeners = tests_in("tests/server/test_listeners.py")
_master = tests_in("tests/server/test_master.py")
_suite = tests_in("tests/suite.py")

LATER = {
    "CVE-2020-11984, CVE-2021-36160": "mod_proxy_uwsgi: waits for the uwsgi protocol",
    "CVE-2022-26377, CVE-2022-36760, CVE-2026-28780, CVE-2026-34032": "waits for AJP13",
    "CVE-2020-1938 (Ghostcat)": "waits for AJP13; that nothing listens on all interfaces is tested",
    "CVE-2022-1319": "waits for AJP13",
    "CVE-2023-27522, in an HTTP status line": "the uwsgi protocol's; the CGI head is tested",
}
"""Rows without a test, or with one for a part of them, and the protocol that they wait for."""

HOLES = {
    "CVE-2016-5385 to 5388, CVE-2016-1000109, CVE-2016-1000110 (httpoxy)": _cve(
        "test_httpoxy_a_proxy_header_does_not_become_http_proxy",
        "test_httpoxy_a_proxy_header_does_not_become_http_proxy_over_cgi",
        "test_httpoxy_a_proxy_header_is_not_left_in_the_environment_of_a_cgi_program",
    )
    + _cve_cgi("test_httpoxy_a_proxy_header_is_not_in_the_childs_environment")
    + _cgihost_environment("test_httpoxy")
    + _guards(
        "test_a_request_sets_the_usual_variables_alone",
        "test_some_variables_are_not_passed_on_even_if_asked_for",
    )
    + _suite("a-Proxy-header-never-becomes-HTTP_PROXY"),
    "CVE-2025-23016, CVE-2025-40907": _cve(
        "test_cve_2025_23016_lengths_that_overflow_are_refused_and_allocate_nothing"
    ),
    "CVE-2012-6687": _cve("test_cve_2012_6687_descriptors_beyond_1024_work"),
    "CVE-2011-2766": _cve("test_cve_2011_2766_nothing_of_a_request_is_seen_by_the_next")
    + _cve_cgi("test_cve_2011_2766_nothing_of_a_request_is_seen_by_the_next")
    + _cgihost_environment("test_nothing_is_carried_over_to_the_next_request"),
    "Go issue 81548": _cve(
        "test_go_81548_half_open_requests_are_bounded_and_their_memory_comes_back"
    ),
    "Go issue 11552": _cve("test_go_11552_aborts_while_bodies_are_read_leave_nothing_behind"),
    "CVE-2019-11043": _cve("test_cve_2019_11043_an_odd_path_arrives_as_it_was_sent")
    + _cve_cgi("test_cve_2019_11043_an_odd_path_reaches_the_script_as_it_was_sent")
    + _cgihost_paths("test_path_info_may_be_anything_else"),
    "CVE-2024-9026": _cve(
        "test_cve_2024_9026_a_line_for_the_log_arrives_whole_however_it_was_cut",
        "test_cve_2024_9026_a_request_cannot_write_a_line_of_its_own_into_the_log",
    )
    + _guards("test_stderr_forges_no_log_lines_and_moves_no_cursor"),
    "CVE-2021-21703": _cve("test_cve_2021_21703_nothing_a_worker_writes_harms_its_master"),
    "CVE-2015-9253": _cve(
        "test_cve_2015_9253_workers_that_die_at_once_are_replaced_ever_more_slowly"
    )
    + _master("test_a_worker_that_dies_at_once_is_not_replaced_in_a_frenzy"),
    "CVE-2024-8927": _cve(
        "test_cve_2024_8927_no_header_makes_a_variable_that_servers_are_trusted_for"
    )
    + _cve_cgi("test_cve_2024_8927_no_header_makes_a_variable_that_scripts_trust")
    + _cgihost_environment("test_a_header_cannot_make_a_variable_that_is_trusted"),
    "CVE-2026-55203": _cve(
        "test_cve_2026_55203_the_longest_content_with_any_padding_keeps_its_frame",
        "test_cve_2026_55203_the_longest_answer_with_any_padding_keeps_its_frame",
    ),
    "HAProxy, record lengths cut to 16 bits": _cve(
        "test_haproxy_65544_no_record_claims_less_than_it_holds"
    ),
    "CVE-2026-42946": _cve(
        "test_cve_2026_42946_a_malformed_answer_is_an_error_and_never_an_answer"
    ),
    "GO-2026-5346": _cve(
        "test_go_2026_5346_a_forged_header_cannot_stand_alone_for_the_trusted_one"
    ),
    "CVE-2015-0219, CVE-2026-3902, GHSA-9hf4-67fc-4vf4, gunicorn 2799": _cve(
        "test_go_2026_5346_a_forged_header_cannot_stand_alone_for_the_trusted_one"
    ),
    "GO-2026-5492, GO-2026-4639, CVE-2026-30851": _cve(
        "test_go_2026_5492_a_path_is_split_by_its_bytes"
    )
    + _cgihost_paths("test_a_case_folded_or_composed_name_is_another_file"),
    "CVE-2014-3583": _cve("test_cve_2014_3583_a_head_may_be_split_at_every_byte")
    + _cgihost_answers(
        "test_a_head_may_come_a_byte_at_a_time",
        "test_a_head_is_bounded",
        "test_garbage_is_502_and_the_log_says_why",
    ),
    "CVE-2023-27522": _cve(
        "test_cve_2023_27522_a_control_character_in_the_head_is_a_500_and_a_line_in_the_log"
    ),
    "CVE-2024-24795, CVE-2023-38709, CVE-2022-37436": _cve(
        "test_cve_2023_27522_a_control_character_in_the_head_is_a_500_and_a_line_in_the_log"
    )
    + _cve_cgi("test_cve_2024_24795_a_head_that_a_script_was_made_to_break_is_refused"),
    "CVE-2024-38473": _cve(
        "test_cve_2024_38473_an_encoded_path_is_decoded_once",
        "test_cve_2024_38473_an_encoded_path_is_decoded_once_where_the_server_sends_none",
        "test_cve_2024_38473_nul_in_a_path_passes_or_is_refused_but_cuts_nothing",
    )
    + _cgihost_paths("test_NUL_is_400"),
    "CVE-2018-7490, CVE-2018-6758": _cve("test_cve_2018_6758_a_very_long_path_arrives")
    + _cve_cgi("test_cve_2014_4650_no_path_leads_out_of_the_folder"),
    "CVE-2007-4727": _cve(
        "test_cve_2007_4727_a_long_header_arrives_whole",
        "test_cve_2007_4727_a_header_beyond_the_limit_is_answered_with_431",
    )
    + _cgihost_environment("test_long_headers_pass_or_are_refused"),
    "CVE-2022-41556": _cve("test_cve_2022_41556_peers_that_half_close_leave_nothing_behind"),
    "CVE-2014-4650, CVE-2011-1015": _cve_cgi(
        "test_cve_2014_4650_no_path_leads_out_of_the_folder",
        "test_cve_2011_1015_the_source_is_never_shown",
        "test_a_script_that_may_be_asked_shows_what_the_others_must_not",
    )
    + _cgihost_paths(
        "test_what_is_not_there_is_404",
        "test_an_encoded_slash_names_no_script",
        "test_no_spelling_shows_its_text",
        "test_a_file_that_is_not_executable_is_403_and_the_log_knows_the_remedy",
        "test_links_lead_where_they_may",
    )
    + _lighttpd("test_what_lies_beside_the_program_is_not_shown"),
    "gh-119452": _cve("test_gh_119452_a_huge_content_length_allocates_nothing")
    + _cve_cgi("test_gh_119452_a_huge_content_length_allocates_nothing")
    + _cgihost_bodies("test_a_huge_content_length_takes_no_memory"),
    "CVE-2026-0865, gh-143916, gh-144370, gh-150726": _cve(
        "test_cve_2023_27522_a_control_character_in_the_head_is_a_500_and_a_line_in_the_log"
    ),
    "CVE-2022-24761, CVE-2019-16785, CVE-2019-16789, CVE-2024-49768, CVE-2024-49769": _cve(
        "test_cve_2022_24761_a_length_is_ascii_digits",
        "test_cve_2022_24761_a_length_is_ascii_digits_over_cgi",
        "test_cve_2022_24761_minus_one_is_a_length_only_where_the_body_has_an_end_of_its_own",
        "test_two_different_lengths_are_refused",
        "test_cve_2024_49769_peers_that_close_between_requests_leave_nothing_behind",
    )
    + _cve_cgi("test_cve_2022_24761_a_length_is_ascii_digits")
    + _cgihost_bodies("test_what_is_no_length_is_refused")
    + _guards("test_what_is_no_content_length_starts_no_script"),
    "CVE-2024-1135, CVE-2024-6827": _front("test_the_front_lets_no_request_be_smuggled_in_a_body"),
    "no id: an exposed FastCGI port": _cve("test_an_exposed_port_is_refused_with_exit_status_2")
    + _cve_cgi("test_a_client_names_no_file_to_run")
    + _cgihost_paths("test_a_client_cannot_name_the_file"),
    "no id: Perl's Reverse::Proxy": _cve(
        "test_a_decoded_path_is_encoded_again_when_it_is_forwarded"
    ),
    "no id: flup's defects 6, 7 and 14": _flup(
        "test_a_length_that_lies_is_refused",
        "test_a_record_of_another_version_ends_the_connection",
        "test_a_line_end_in_a_header_is_refused",
    ),
    "no id: options out of a query (CVE-2012-1823, CVE-2024-4577)": _cve_cgi(
        "test_argv_never_holds_an_option"
    )
    + _guards("test_a_query_makes_no_options"),
    "no id: slowloris": _cve("test_slow_heads_hold_no_thread_and_are_cut_off"),
    "no id: broken messages": _cve("test_broken_messages_leave_a_server_that_still_answers"),
    "CVE-2020-1938 (Ghostcat)": _cve("test_an_exposed_port_is_refused_with_exit_status_2"),
    "CVE-2020-11984, CVE-2021-36160": (),
    "CVE-2022-26377, CVE-2022-36760, CVE-2026-28780, CVE-2026-34032": (),
    "CVE-2022-1319": (),
    "CVE-2023-27522, in an HTTP status line": (),
}

RFC3875_POINTS = {
    "Location with a path alone is a local redirect": _cgihost_answers(
        "test_a_local_redirect_runs_the_other_script",
        "test_what_is_no_local_redirect_of_ours_goes_to_the_visitor",
        "test_a_circle_of_local_redirects_ends",
        "test_the_script_that_a_HEAD_is_redirected_to_gives_no_body",
    ),
    "An absolute Location without Status is 302": _cgihost_answers(
        "test_an_absolute_location_without_a_status_is_302"
    ),
    "Location with Status and a body is a document": _cgihost_answers(
        "test_location_with_a_status_and_a_body_goes_out_as_it_is"
    ),
    "One of Content-Type, Location and Status is there": _cgihost_answers(
        "test_garbage_is_502_and_the_log_says_why"
    ),
    "Names of headers are the same in any case": _cgihost_answers(
        "test_status_is_the_status_in_any_case"
    ),
    "CONTENT_LENGTH is absent or empty without a body": _cgihost_environment(
        "test_content_length_is_absent_without_a_body"
    ),
    "QUERY_STRING is always set": _cgihost_environment("test_query_string_is_always_there"),
    "A query without = is the arguments, and never an option": _cgihost_environment(
        "test_the_words_of_an_indexed_query",
        "test_an_indexed_query_is_not_the_default_nor_for_POST",
        "test_an_interpreter_gets_the_script_before_the_words",
    )
    + _cve_cgi("test_argv_never_holds_an_option", "test_argv_holds_the_words_of_an_indexed_query"),
    "PATH_INFO is decoded, and SCRIPT_NAME is not encoded anew": _cgihost_environment(
        "test_paths_are_told_apart_at_the_script"
    ),
    "Authorization is withheld unless it is asked for": _cgihost_environment(
        "test_authorization_is_withheld_unless_asked_for"
    ),
    "REDIRECT_ variables after an internal redirect": _cgihost_answers(
        "test_a_local_redirect_runs_the_other_script"
    )
    + _cgihost_environment("test_the_web_servers_own_redirect_status_passes"),
    "What an NPH script writes is passed on": _cgihost_answers(
        "test_an_nph_script_answers_in_http",
        "test_an_nph_script_is_asked_in_http_1_0",
        "test_an_nph_script_that_gives_no_whole_answer_is_502",
    ),
    "The working directory is the script's folder": _cgihost_environment(
        "test_the_working_directory_is_the_scripts_folder"
    ),
    "What comes after Content-Length is dropped": _cgihost_answers(
        "test_what_comes_after_the_content_length_is_dropped",
        "test_endless_output_after_the_content_length_is_ended",
    ),
}

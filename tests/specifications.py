"""Every clause of the four specifications, and what proves that we keep it.

A clause has the tests that prove it, as "path::name" (a row of the shared suite as
"tests/suite.py::row"), or the reason why there is none: somebody else's duty, or not claimed.
Where it has both, the reason says what the tests show in the clause's stead, or of which part.

`rule` is the clause in our words.  `level` is RFC 2119's; FastCGI and SCGI do not use those words,
so there "MUST" is what the text states as a fact, "SHOULD" what it recommends and "MAY" what it
allows.  Clauses about the authors of applications stand here only where a server sees them broken.

tests/test_specifications.py checks that all these tests exist and that the sections are in order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

Level = Literal["MUST", "SHOULD", "MAY"]


class Clause(NamedTuple):
    """A sentence of a specification, and where it is tested or why it is not."""

    section: str
    level: Level
    rule: str
    tests: tuple[str, ...] = ()
    reason: str = ""


def tests_in(path: str) -> Callable[..., tuple[str, ...]]:
    def named(*names: str) -> tuple[str, ...]:
        return tuple(f"{path}::{name}" for name in names)

    return named


_captures = tests_in("tests/test_captures.py")
_cgi = tests_in("tests/unit/test_cgi.py")
_cgihost_answers = tests_in("tests/cgihost/test_answers.py")
_cgihost_bodies = tests_in("tests/cgihost/test_bodies.py")
_cgihost_environment = tests_in("tests/cgihost/test_environment.py")
_cgihost_limits = tests_in("tests/cgihost/test_limits.py")
_cgihost_paths = tests_in("tests/cgihost/test_paths.py")
_clauses = tests_in("tests/test_clauses.py")
_cli = tests_in("tests/test_cli.py")
_client = tests_in("tests/test_client.py")
_cve = tests_in("tests/test_cve.py")
_deadlines = tests_in("tests/server/test_deadlines.py")
_document = tests_in("tests/unit/test_document.py")
_environ = tests_in("tests/unit/test_environ.py")
_fastcgi = tests_in("tests/unit/test_fastcgi.py")
_flup = tests_in("tests/peers/test_flup_defects.py")
_listeners = tests_in("tests/server/test_listeners.py")
_live = tests_in("tests/server/test_connection_contract.py")
_master = tests_in("tests/server/test_master.py")
_nginx = tests_in("tests/interop/test_nginx.py")
_pep3333 = tests_in("tests/test_pep3333.py")
_properties = tests_in("tests/test_properties.py")
_response = tests_in("tests/unit/test_response.py")
_scgi = tests_in("tests/unit/test_scgi.py")
_served = tests_in("tests/test_suite_server.py")
_started = tests_in("tests/server/test_started.py")
_streaming = tests_in("tests/interop/test_streaming.py")
_suite = tests_in("tests/suite.py")
_tables = tests_in("tests/unit/test_fastcgi_tables.py")
_wsgi = tests_in("tests/unit/test_wsgi.py")

FASTCGI = [
    Clause(
        "2.1",
        "MAY",
        "The web server may start the application with its name as the only argument.",
        reason="the web server's side; we are started with arguments or from a script",
    ),
    Clause(
        "2.2",
        "MUST",
        "Descriptor 0 is the listening socket when the application begins.",
        _listeners(
            "test_a_listening_socket_on_descriptor_0_is_served_and_ends_by_any_managers_signal"
        )
        + _cli("test_serve_takes_the_listening_socket_that_it_was_started_on"),
    ),
    Clause(
        "2.2",
        "MUST",
        "Standard output and standard error are closed when the application begins.",
        _clauses("test_a_program_started_with_nothing_but_the_listening_socket_serves"),
    ),
    Clause(
        "2.2",
        "MAY",
        "getpeername() on descriptor 0 tells FastCGI from CGI.",
        _started(
            "test_a_CGI_request_is_answered_whatever_its_standard_input_is",
            "test_a_listening_socket_is_served_although_CGI_variables_are_left_over",
        ),
        reason="SO_ACCEPTCONN is asked instead: under mod_cgid a CGI script has a connection there",
    ),
    Clause(
        "2.3",
        "MAY",
        "The web server may pass parameters in environment variables.",
        _cli("test_options_come_from_the_environment_and_the_command_line_wins")
        + _started("test_FCGI_WEB_SERVER_ADDRS_lets_nobody_else_in"),
    ),
    Clause(
        "2.4",
        "MAY",
        "The web server may set the rest of the initial state: user, priority, directory.",
        reason="the web server's side; nothing of it is visible in the protocol",
    ),
    Clause(
        "3.2",
        "MUST",
        "The application takes connections by accept() on the listening socket.",
        _listeners(
            "test_a_listening_socket_on_descriptor_0_is_served_and_ends_by_any_managers_signal"
        ),
    ),
    Clause(
        "3.2",
        "MUST",
        "With FCGI_WEB_SERVER_ADDRS bound, peers outside that list are closed at once.",
        _started(
            "test_FCGI_WEB_SERVER_ADDRS_lets_nobody_else_in",
            "test_FCGI_WEB_SERVER_ADDRS_knows_IPv6",
            "test_FCGI_WEB_SERVER_ADDRS_does_not_concern_unix_sockets",
            "test_a_malformed_FCGI_WEB_SERVER_ADDRS_refuses_to_start",
        ),
        reason="a unix socket's peers have no address: its permissions say who may connect",
    ),
    Clause(
        "3.2",
        "MAY",
        "An application may hold several connections at the same time.",
        _deadlines("test_past_max_connections_the_idle_connection_used_longest_ago_is_closed")
        + _served("test_the_suite_all_at_once"),
    ),
    Clause(
        "3.3",
        "MUST",
        "All data is in records: an 8-byte header, content up to 65,535 bytes, padding up to 255.",
        _fastcgi(
            "test_a_record_of_each_type_is_eight_bytes_of_header_and_its_content",
            "test_what_does_not_fit_into_a_record_is_not_encoded",
            "test_no_record_is_longer_than_its_length_field_can_say",
            "test_a_long_head_is_cut_into_records",
            "test_a_long_body_is_cut_into_records",
        )
        + _properties("test_records_are_read_as_they_were_written")
        + _cve("test_haproxy_65544_no_record_claims_less_than_it_holds"),
    ),
    Clause(
        "3.3",
        "MUST",
        "The version is FCGI_VERSION_1.",
        _fastcgi(
            "test_another_version_ends_the_connection",
            "test_reading_records_stops_at_another_version",
        )
        + _flup("test_a_record_of_another_version_ends_the_connection"),
    ),
    Clause(
        "3.3",
        "MUST",
        "A receiver heeds paddingLength and skips the padding, whatever it holds.",
        _fastcgi(
            "test_padding_follows_the_content",
            "test_records_are_read_with_their_offsets_and_padding",
            "test_the_longest_content_takes_any_padding",
            "test_the_longest_params_record_takes_padding",
        )
        + _cve(
            "test_cve_2026_55203_the_longest_content_with_any_padding_keeps_its_frame",
            "test_cve_2026_55203_the_longest_answer_with_any_padding_keeps_its_frame",
        ),
    ),
    Clause(
        "3.3",
        "SHOULD",
        "A sender places records at multiples of eight bytes.",
        _fastcgi("test_a_long_body_is_cut_into_records"),
        reason="not claimed beyond this: full records hold 65,528 bytes and so stay aligned, shorter"
        " ones are not padded; no reader today copies in words",
    ),
    Clause(
        "3.3",
        "MUST",
        "An id is active from FCGI_BEGIN_REQUEST to FCGI_END_REQUEST, and may be used again then.",
        _fastcgi(
            "test_requests_on_one_connection_are_told_apart_by_id",
            "test_a_begin_request_for_an_open_id_ends_the_connection",
            "test_an_id_may_be_used_again_once_its_request_has_ended",
            "test_the_id_of_a_lost_answer_is_free_after_its_end",
            "test_many_ended_requests_are_not_remembered",
        )
        + _live("test_requests_one_after_another_under_the_same_id_are_all_answered"),
    ),
    Clause(
        "3.3",
        "MUST",
        "Records of an inactive id are ignored, FCGI_BEGIN_REQUEST excepted.",
        _fastcgi(
            "test_records_of_a_request_that_is_not_open_are_ignored",
            "test_what_still_comes_for_an_answered_request_is_ignored",
        ),
    ),
    Clause(
        "3.3",
        "SHOULD",
        "The web server keeps ids small.",
        _fastcgi("test_a_request_is_begin_request_params_and_their_end"),
        reason="the caller gives the codec its ids; our client has one request on a connection and"
        " uses 1",
    ),
    Clause(
        "3.3",
        "MAY",
        "An application may take one request at a time.",
        _fastcgi(
            "test_without_multiplexing_a_second_request_is_refused",
            "test_without_multiplexing_one_request_after_the_other_is_served",
        ),
    ),
    Clause(
        "3.3",
        "MUST",
        "Records multiplex requests: those of several may alternate on one connection.",
        _fastcgi("test_requests_on_one_connection_are_told_apart_by_id")
        + _live(
            "test_answers_on_one_connection_never_mix_within_a_record",
            "test_requests_sent_together_on_one_connection_run_at_the_same_time",
        )
        + _served("test_requests_multiplexed_on_one_connection_keep_their_bodies_apart"),
    ),
    Clause(
        "3.3",
        "MUST",
        "Management records have the id 0, application records another.",
        _fastcgi(
            "test_an_application_record_without_an_id_ends_the_connection",
            "test_a_request_that_cannot_be_sent_changes_nothing",
            "test_what_an_application_cannot_send_ends_the_connection",
        ),
    ),
    Clause(
        "3.3",
        "MUST",
        "A stream is records with content and then one without, sent once.",
        _fastcgi(
            "test_the_streams_of_a_role_are_each_ended",
            "test_no_bytes_write_no_record",
            "test_an_answer_is_stdout_its_end_and_end_request",
            "test_the_end_of_file_cuts_the_requests_that_are_incomplete",
        ),
    ),
    Clause(
        "3.3",
        "MUST",
        "The value of a stream does not depend on how its records divide it.",
        _clauses("test_the_value_of_a_stream_does_not_depend_on_its_records")
        + _fastcgi(
            "test_a_server_end_makes_the_same_of_any_bytes_however_they_are_cut",
            "test_a_client_end_makes_the_same_of_any_bytes_however_they_are_cut",
        ),
    ),
    Clause(
        "3.4",
        "MUST",
        "A pair is two lengths, a name and a value; both may be any bytes.",
        _fastcgi(
            "test_pairs_are_decoded_as_they_were_encoded",
            "test_repeated_names_are_kept_in_order",
            "test_a_pair_that_the_data_ends_in_is_refused",
            "test_bad_pairs_hurt_only_their_request",
        )
        + _captures("test_a_capture_holds_what_an_independent_decoding_finds"),
    ),
    Clause(
        "3.4",
        "MUST",
        "A length over 127 takes four bytes with the high bit set; a shorter one may.",
        _fastcgi(
            "test_a_length_over_127_takes_four_bytes_with_the_high_bit_set",
            "test_a_short_length_may_take_four_bytes",
            "test_a_name_of_two_gibibytes_cannot_be_encoded",
        ),
    ),
    Clause(
        "3.4",
        "MAY",
        "The receiver may allocate for a value as soon as it knows its length.",
        _fastcgi(
            "test_what_is_claimed_is_not_allocated",
            "test_lengths_that_overflow_32_bits_together_are_refused",
        )
        + _cve("test_cve_2025_23016_lengths_that_overflow_are_refused_and_allocate_nothing"),
        reason="we never do: a length is a peer's word until the bytes are there",
    ),
    Clause(
        "3.5",
        "MUST",
        "The web server may close a connection on which no request is active.",
        _fastcgi("test_the_end_of_file_on_an_idle_connection_closes_it")
        + _cve("test_cve_2024_49769_peers_that_close_between_requests_leave_nothing_behind"),
    ),
    Clause(
        "3.5",
        "MUST",
        "The web server may leave the closing to the application; see 5.1.",
        _fastcgi("test_an_answer_is_stdout_its_end_and_end_request"),
    ),
    Clause(
        "3.5",
        "MUST",
        "After a connection has closed the application takes another.",
        _live("test_nothing_is_left_behind_after_many_connections"),
    ),
    Clause(
        "4.1",
        "MUST",
        "FCGI_GET_VALUES holds names with empty values.",
        _fastcgi(
            "test_values_are_asked_for_and_kept",
            "test_a_question_that_is_no_list_of_names_ends_the_connection",
        ),
    ),
    Clause(
        "4.1",
        "MUST",
        "The application answers FCGI_GET_VALUES_RESULT with the values of those names.",
        _fastcgi(
            "test_values_are_told_for_the_names_that_were_asked",
            "test_both_ends_agree_about_the_limits",
        )
        + _client("test_the_limits_of_a_server_can_be_asked_before_a_request"),
    ),
    Clause(
        "4.1",
        "MUST",
        "A name that is not understood is left out of the answer.",
        _fastcgi("test_names_that_are_not_understood_are_left_out"),
    ),
    Clause(
        "4.1",
        "MUST",
        "FCGI_MAX_CONNS, FCGI_MAX_REQS and FCGI_MPXS_CONNS tell the limits in force.",
        _fastcgi(
            "test_values_are_told_for_the_names_that_were_asked",
            "test_a_connection_that_does_not_multiplex_says_so",
        )
        + _flup("test_get_values_tells_the_limits_in_force"),
    ),
    Clause(
        "4.1",
        "MUST",
        "FCGI_GET_VALUES may come at any time.",
        _fastcgi("test_values_are_told_while_a_request_is_open"),
    ),
    Clause(
        "4.1",
        "SHOULD",
        "The answer involves the library alone, not the application proper.",
        _live("test_values_are_told_while_an_application_runs"),
    ),
    Clause(
        "4.2",
        "MUST",
        "A management record of an unknown type is answered with FCGI_UNKNOWN_TYPE and that type.",
        _fastcgi(
            "test_an_unknown_management_type_is_answered_and_skipped",
            "test_types_that_the_application_does_not_know_are_kept",
        ),
    ),
    Clause(
        "5.1",
        "MUST",
        "FCGI_BEGIN_REQUEST opens a request: a role of two bytes, flags, five reserved bytes.",
        _fastcgi(
            "test_a_request_is_begin_request_params_and_their_end",
            "test_the_role_and_the_flag_are_sent",
            "test_a_begin_request_of_another_size_ends_the_connection",
            "test_the_reserved_bytes_may_hold_anything",
        )
        + _clauses("test_the_role_is_a_number_of_two_bytes"),
    ),
    Clause(
        "5.1",
        "MUST",
        "Without FCGI_KEEP_CONN the application closes the connection after its answer.",
        _fastcgi(
            "test_keep_conn_is_the_lowest_flag",
            "test_a_connection_not_to_be_kept_waits_for_the_requests_that_are_open",
            "test_a_refusal_closes_the_connection_where_it_was_not_to_be_kept",
            "test_the_connection_is_over_when_it_is_not_kept",
        ),
    ),
    Clause(
        "5.1",
        "MUST",
        "With FCGI_KEEP_CONN the application does not close the connection.",
        _fastcgi("test_the_application_may_keep_the_connection")
        + _deadlines("test_a_kept_connection_may_be_idle_for_longer_than_a_head_may_take")
        + _client("test_a_connection_is_kept_for_the_next_request")
        + _nginx("test_kept_connections_are_used_again"),
    ),
    Clause(
        "5.2",
        "MUST",
        "FCGI_PARAMS is a stream of name-value pairs, in any order.",
        _fastcgi(
            "test_a_pair_may_lie_across_two_params_records",
            "test_a_request_without_variables_is_one",
            "test_a_pair_that_no_record_can_hold_is_cut",
            "test_long_values_up_to_the_limit_arrive",
        )
        + _flup("test_a_pair_may_be_split_across_records_anywhere"),
    ),
    Clause(
        "5.3",
        "MUST",
        "FCGI_STDIN, FCGI_DATA, FCGI_STDOUT and FCGI_STDERR are streams of any bytes.",
        _fastcgi(
            "test_a_body_is_handed_on_before_its_record_is_complete",
            "test_what_a_real_server_sent_passes_through_both_ends_unchanged",
        )
        + _properties("test_what_one_end_sends_the_other_receives")
        + _suite("a-body-of-every-byte-value-arrives", "an-answer-of-every-byte-value"),
    ),
    Clause(
        "5.4",
        "MUST",
        "FCGI_ABORT_REQUEST is answered as soon as possible with FCGI_END_REQUEST.",
        _fastcgi(
            "test_an_aborted_request_is_ended_by_the_application",
            "test_an_abort_before_the_end_of_params_is_answered_at_once",
        )
        + _live("test_an_abort_of_a_body_that_is_being_collected_ends_the_request")
        + _client("test_an_abort_is_a_record_and_the_answer_ends_with_its_status"),
    ),
    Clause(
        "5.4",
        "MUST",
        "That answer is the application's, not an acknowledgement of the library's.",
        _fastcgi(
            "test_an_abort_reaches_a_request_whose_body_is_awaited",
            "test_an_abort_reaches_a_request_that_is_being_answered",
        )
        + _live("test_an_abort_wakes_the_application_that_reads_the_body"),
        reason="a request that no application has seen yet is ended by the server",
    ),
    Clause(
        "5.4",
        "MAY",
        "Without multiplexing the web server may abort by closing the connection.",
        _live(
            "test_a_peer_that_vanishes_in_an_upload_wakes_the_application",
            "test_a_peer_that_stops_reading_and_leaves_ends_the_application",
        ),
    ),
    Clause(
        "5.5",
        "MUST",
        "FCGI_END_REQUEST holds appStatus in four bytes, protocolStatus, three reserved bytes.",
        _fastcgi(
            "test_an_answer_is_stdout_its_end_and_end_request",
            "test_statuses_are_unsigned",
            "test_an_application_status_is_unsigned",
            "test_a_status_that_does_not_fit_changes_nothing",
        ),
    ),
    Clause(
        "5.5",
        "MUST",
        "FCGI_REQUEST_COMPLETE is the normal end.",
        _fastcgi("test_an_answer_becomes_its_events"),
    ),
    Clause(
        "5.5",
        "MUST",
        "FCGI_CANT_MPX_CONN refuses a concurrent request that the application cannot multiplex.",
        _fastcgi("test_without_multiplexing_a_second_request_is_refused"),
    ),
    Clause(
        "5.5",
        "MUST",
        "FCGI_OVERLOADED refuses a request for want of some resource.",
        _fastcgi("test_past_the_cap_requests_are_overloaded")
        + _flup("test_past_the_cap_a_request_is_told_that_the_server_is_overloaded"),
    ),
    Clause(
        "5.5",
        "MUST",
        "FCGI_UNKNOWN_ROLE refuses a role that the application does not know.",
        _fastcgi(
            "test_an_unknown_role_is_refused_without_an_event",
            "test_a_role_that_is_not_served_is_unknown",
        ),
    ),
    Clause(
        "6.1",
        "MUST",
        "Inputs come one after the other, never interleaved.",
        _fastcgi(
            "test_a_record_out_of_order_hurts_only_its_request",
            "test_data_before_the_end_of_stdin_is_out_of_order",
        )
        + _tables(
            "test_a_server_end_takes_what_the_role_allows_and_nothing_else",
            "test_a_client_end_sends_what_the_role_allows_and_nothing_else",
        ),
    ),
    Clause(
        "6.1",
        "MAY",
        "FCGI_STDOUT and FCGI_STDERR may be interleaved.",
        _fastcgi(
            "test_error_output_goes_to_stderr_and_ends_that_stream_too",
            "test_an_answer_becomes_its_events",
        )
        + _tables("test_a_client_end_takes_what_an_answer_allows_and_nothing_else"),
    ),
    Clause(
        "6.1",
        "MUST",
        "Without errors to report there is no FCGI_STDERR, or one record without content.",
        _fastcgi(
            "test_an_answer_is_stdout_its_end_and_end_request",
            "test_error_output_goes_to_stderr_and_ends_that_stream_too",
        ),
    ),
    Clause(
        "6.1",
        "MUST",
        "Of every other stream at least one record is sent, however empty it is.",
        _fastcgi(
            "test_no_bytes_write_no_record",
            "test_a_request_without_variables_is_one",
            "test_the_streams_of_a_role_are_each_ended",
        ),
        reason="an answer that is given up has no end of FCGI_STDOUT, so that it shows",
    ),
    Clause(
        "6.1",
        "MAY",
        "Output may begin before the last input stream has ended.",
        _fastcgi("test_an_answer_may_end_before_the_request_has")
        + _live("test_an_answer_given_before_the_body_has_arrived_reaches_the_peer"),
    ),
    Clause(
        "6.1",
        "MUST",
        "A textual value in FCGI_PARAMS neither ends with a null byte nor holds one.",
        _clauses("test_no_value_of_a_variable_holds_nul")
        + _cve("test_cve_2024_38473_nul_in_a_path_passes_or_is_refused_but_cuts_nothing"),
        reason="the second test is the receiver's: a web server's NUL ends no string there",
    ),
    Clause(
        "6.1",
        "MUST",
        "There are no non-parsed headers: Status and Location set the response's status.",
        _response("test_a_head_is_the_status_the_headers_and_an_empty_line")
        + _fastcgi("test_an_answer_is_stdout_its_end_and_end_request"),
        reason="our client takes a status line all the same, since scripts send it",
    ),
    Clause(
        "6.2",
        "MUST",
        "A Responder gets the variables over FCGI_PARAMS, then the body over FCGI_STDIN.",
        _fastcgi("test_a_responder_request_as_nginx_sends_it")
        + _captures("test_the_variables_of_a_capture_are_those_of_the_index"),
    ),
    Clause(
        "6.2",
        "MUST",
        "It receives at most CONTENT_LENGTH bytes, fewer only where the client failed.",
        _live("test_a_body_that_is_longer_or_shorter_than_its_length_is_an_error")
        + _captures("test_an_upload_that_the_visitor_cut_is_never_taken_for_complete"),
    ),
    Clause(
        "6.2",
        "MUST",
        "It sends the CGI response over FCGI_STDOUT and its errors over FCGI_STDERR, concurrently.",
        _fastcgi("test_error_output_goes_to_stderr_and_ends_that_stream_too")
        + _live("test_errors_go_to_the_web_server_when_asked"),
    ),
    Clause(
        "6.2",
        "MUST",
        "It writes nothing before the end of FCGI_PARAMS, but need not wait for that of FCGI_STDIN.",
        _fastcgi(
            "test_a_request_cannot_be_answered_before_it_is_announced",
            "test_an_answer_may_end_before_the_request_has",
        ),
    ),
    Clause(
        "6.2",
        "MUST",
        "FCGI_END_REQUEST comes last, with FCGI_REQUEST_COMPLETE.",
        _tables("test_a_server_end_sends_what_the_answer_allows_and_nothing_else")
        + _fastcgi("test_an_answer_is_stdout_its_end_and_end_request"),
    ),
    Clause(
        "6.2",
        "MUST",
        "appStatus is the exit status that the CGI program would have had.",
        _fastcgi(
            "test_statuses_are_unsigned",
            "test_giving_up_one_answer_of_several_ends_it_with_a_status",
        ),
        reason="a WSGI application has no exit status: 0 for every answer that is complete, 1 for one"
        " that was given up",
    ),
    Clause(
        "6.2",
        "SHOULD",
        "An update compares what it read with CONTENT_LENGTH and is abandoned if they differ.",
        _live("test_a_body_that_is_longer_or_shorter_than_its_length_is_an_error")
        + _fastcgi("test_the_end_of_file_cuts_the_requests_that_are_incomplete"),
    ),
    Clause(
        "6.3",
        "MUST",
        "An Authorizer gets the variables over FCGI_PARAMS, in a Responder's format, and no body.",
        _fastcgi(
            "test_an_authorizer_request_is_complete_when_its_params_end",
            "test_stdin_that_an_authorizer_gets_all_the_same_is_ignored",
        )
        + _live("test_an_authorizer_starts_when_its_params_end"),
    ),
    Clause(
        "6.3",
        "MUST",
        "The web server sends it no CONTENT_LENGTH, PATH_INFO, PATH_TRANSLATED or SCRIPT_NAME.",
        _clauses("test_an_authorizer_is_not_sent_what_belongs_to_the_script")
        + _environ("test_an_authorizers_request_has_a_path"),
        reason="the second test is the receiver's, which must do without them",
    ),
    Clause(
        "6.3",
        "MUST",
        "It sends its output as a Responder does; a status of 200 grants access.",
        _live("test_an_authorizer_starts_when_its_params_end")
        + _client("test_an_authorizer_is_asked_without_a_body"),
        reason="granting is the web server's",
    ),
    Clause(
        "6.3",
        "MAY",
        "The headers of a 200 may begin with Variable-, for the requests that follow.",
        _live("test_an_authorizer_starts_when_its_params_end"),
    ),
    Clause(
        "6.3",
        "MUST",
        "With 200 the web server ignores all but the Variable- headers, otherwise it sends the answer.",
        reason="the web server's duty: the client hands the whole answer to its caller",
    ),
    Clause(
        "6.4",
        "MUST",
        "A Filter gets FCGI_PARAMS, then FCGI_STDIN, then the file over FCGI_DATA.",
        _fastcgi(
            "test_a_filter_gets_stdin_and_then_data",
            "test_data_before_the_end_of_stdin_is_out_of_order",
        )
        + _live("test_a_filter_gets_both_streams")
        + _client("test_a_filter_gets_its_data_after_its_body"),
    ),
    Clause(
        "6.4",
        "MUST",
        "It gets FCGI_DATA_LAST_MOD and FCGI_DATA_LENGTH.",
        _clauses("test_a_filter_can_tell_that_data_are_missing"),
        reason="sending them is the web server's, with our client its caller's",
    ),
    Clause(
        "6.4",
        "MUST",
        "It receives at most CONTENT_LENGTH bytes of FCGI_STDIN.",
        _live("test_a_body_that_is_longer_or_shorter_than_its_length_is_an_error"),
    ),
    Clause(
        "6.4",
        "MUST",
        "It reads at most FCGI_DATA_LENGTH bytes of FCGI_DATA.",
        reason="fastcgi.data ends where the stream does; what a longer one means is the application's",
    ),
    Clause(
        "6.4",
        "MUST",
        "It reads FCGI_STDIN to its end before it writes.",
        _clauses("test_a_filter_does_not_answer_before_its_stdin_has_ended"),
    ),
    Clause(
        "6.4",
        "MAY",
        "It may write before FCGI_DATA has ended.",
        _clauses("test_a_filter_may_answer_before_its_data_has_ended"),
    ),
    Clause(
        "6.4",
        "MUST",
        "It ends with FCGI_END_REQUEST as a Responder does.",
        _tables("test_a_server_end_sends_what_the_answer_allows_and_nothing_else"),
    ),
    Clause(
        "6.4",
        "SHOULD",
        "It compares both streams with CONTENT_LENGTH and FCGI_DATA_LENGTH.",
        _live("test_a_body_that_is_longer_or_shorter_than_its_length_is_an_error")
        + _clauses("test_a_filter_can_tell_that_data_are_missing"),
        reason="the body is compared for the application, the data by it",
    ),
    Clause(
        "7",
        "MUST",
        "An application that ends on purpose exits with 0, after a crash with another status.",
        _listeners(
            "test_a_listening_socket_on_descriptor_0_is_served_and_ends_by_any_managers_signal"
        )
        + _master(
            "test_an_application_that_cannot_be_loaded_says_so_once_and_the_exit_status_is_2"
        ),
    ),
    Clause(
        "7",
        "MUST",
        "SIGTERM asks an application to exit.",
        _master("test_the_stop_answers_what_runs_and_leaves_nothing")
        + _flup("test_an_idle_master_obeys_sigterm")
        + _deadlines("test_an_idle_kept_connection_does_not_hold_up_the_stop"),
    ),
    Clause(
        "7",
        "MUST",
        "Errors of the application are reported over FCGI_STDERR and appStatus, or to the user.",
        _live("test_errors_go_to_the_web_server_when_asked")
        + _pep3333("test_an_error_before_the_head_is_an_error_page_without_a_traceback")
        + _fastcgi("test_giving_up_one_answer_of_several_ends_it_with_a_status"),
        reason="an error page is a complete answer and has appStatus 0",
    ),
    Clause(
        "7",
        "MUST",
        "Errors of the protocol are reported to syslog.",
        _live("test_a_malformed_scgi_request_is_answered_with_400"),
        reason="not claimed: they go to the log on standard error, which systemd and its like carry on",
    ),
    Clause(
        "8",
        "MUST",
        "The constants have these values.",
        _clauses("test_the_numbers_are_those_of_the_specification"),
    ),
]

SCGI = [
    Clause(
        "2",
        "MUST",
        "The client connects over a reliable stream of 8-bit bytes and sends a request first.",
        _served("test_the_suite")
        + _document(
            "test_an_answer_before_the_request_is_a_fault",
            "test_a_peer_that_closed_first_cannot_be_asked",
        ),
    ),
    Clause(
        "2",
        "MUST",
        "When the server has seen the end of the request it sends its answer.",
        _scgi("test_the_answer_of_the_specification_is_sent")
        + _document("test_an_answer_may_end_before_the_body_has_arrived"),
        reason="as in CGI an application may answer earlier, if it does not want the body",
    ),
    Clause(
        "2",
        "MUST",
        "After the answer the server closes the connection.",
        _clauses("test_the_connection_is_closed_after_the_answer")
        + _scgi("test_the_answer_of_the_specification_is_sent")
        + _document("test_the_answer_ends_with_the_file"),
    ),
    Clause(
        "2",
        "MAY",
        "The format of the answer is left open.",
        _document("test_the_answer_is_a_document_response"),
        reason="it is a CGI response, as every web server expects",
    ),
    Clause(
        "3",
        "MUST",
        "A request is headers and a body.",
        _scgi(
            "test_the_example_of_the_specification_is_received",
            "test_the_example_of_the_specification_is_sent",
        )
        + _captures("test_the_body_of_a_capture_is_as_long_as_the_one_sent"),
    ),
    Clause(
        "3",
        "MUST",
        "A header is a name, NUL, a value, NUL; a name has at least one byte, a value may have none.",
        _scgi(
            "test_names_and_values_keep_every_byte_but_nul",
            "test_an_empty_value_is_a_value",
            "test_a_malformed_head_is_refused",
            "test_variables_that_scgi_cannot_carry_are_refused",
        ),
    ),
    Clause(
        "3",
        "MUST",
        "No name is there twice.",
        _client("test_headers_become_variables_and_repeated_ones_are_joined")
        + _scgi("test_repeated_names_are_kept_in_order", "test_a_malformed_head_is_refused"),
        reason="our client joins them; the codec lets them pass at both ends, since nginx sends each"
        " Cookie line as a header, and refuses only a second CONTENT_LENGTH or SCGI",
    ),
    Clause(
        "3",
        "MUST",
        "The first header is CONTENT_LENGTH, the body's length in decimal ASCII digits.",
        _scgi(
            "test_content_length_is_sent_first_and_scgi_always",
            "test_a_malformed_head_is_refused",
            "test_a_length_with_leading_zeros_is_a_sequence_of_digits",
        )
        + _flup("test_content_length_comes_first_in_scgi")
        + _cve("test_cve_2022_24761_a_length_is_ascii_digits"),
    ),
    Clause(
        "3",
        "MUST",
        "CONTENT_LENGTH is always there, even if it is 0.",
        _scgi(
            "test_a_request_without_a_body_is_complete_with_its_headers",
            "test_no_content_length_is_sent_as_0",
        ),
    ),
    Clause(
        "3",
        "MUST",
        "There is always a header SCGI with the value 1.",
        _scgi(
            "test_content_length_is_sent_first_and_scgi_always", "test_a_malformed_head_is_refused"
        ),
    ),
    Clause(
        "3",
        "SHOULD",
        "The standard variables of CGI are provided as headers.",
        _clauses("test_a_request_over_scgi_has_the_variables_of_cgi"),
    ),
    Clause(
        "3",
        "MUST",
        "The headers are one netstring: digits without a leading zero, a colon, the bytes, a comma.",
        _scgi(
            "test_a_malformed_head_is_refused",
            "test_a_head_over_a_limit_is_refused",
            "test_end_of_file_inside_the_headers_is_a_fault",
        )
        + _flup("test_a_netstring_length_is_ascii_digits"),
    ),
    Clause(
        "3",
        "MUST",
        "The body follows the headers and is CONTENT_LENGTH bytes long.",
        _scgi(
            "test_the_body_is_handed_on_as_it_arrives",
            "test_end_of_file_inside_the_body_aborts_the_request",
            "test_bytes_past_the_body_are_ignored",
        )
        + _document(
            "test_a_body_longer_than_its_content_length_is_refused",
            "test_a_body_shorter_than_its_content_length_is_refused",
        )
        + _flup("test_an_scgi_body_ends_where_content_length_says"),
    ),
    Clause(
        "4",
        "MUST",
        "The example, byte for byte.",
        _scgi(
            "test_the_example_of_the_specification_is_received",
            "test_the_example_of_the_specification_is_sent",
            "test_the_answer_of_the_specification_is_sent",
        ),
    ),
]

RFC3875 = [
    Clause(
        "3.1",
        "MUST",
        "The server keeps to the client's protocol whatever the script does.",
        _client("test_a_backend_that_breaks_the_format_is_a_502")
        + _cve("test_cve_2026_42946_a_malformed_answer_is_an_error_and_never_an_answer"),
        reason="HTTP is the web server's; what our client end can do is to refuse the answer",
    ),
    Clause(
        "3.1",
        "MUST",
        "No script runs before the access controls have passed.",
        reason="the web server's duty",
    ),
    Clause(
        "3.3",
        "MUST",
        "The Script-URI made of the variables leads back to the same variables.",
        _pep3333("test_the_url_can_be_put_together_again")
        + _environ("test_the_application_sees_the_path_whatever_the_server_sends"),
    ),
    Clause(
        "3.4",
        "SHOULD",
        "The script is prepared to be ended at any time.",
        _clauses(
            "test_a_script_that_is_ended_closes_what_its_application_opened",
            "test_a_script_that_is_ended_after_its_answer_still_closes",
            "test_a_visitor_who_has_gone_and_the_signal_after_it_leave_close_in_peace",
        )
        + _flup("test_a_fault_in_the_middle_of_a_cgi_answer_shows"),
    ),
    Clause(
        "4.1",
        "MUST",
        "Names are the same whatever their case.",
        _environ("test_lower_case_and_dashed_names_pass"),
        reason="never to be sent is the server's duty; here each name is a variable of its own, and"
        " those of CGI are the ones in capitals",
    ),
    Clause(
        "4.1",
        "MUST",
        "An empty value and a missing one are not distinguished.",
        _clauses("test_an_empty_value_and_none_are_the_same")
        + _environ("test_empty_ones_are_left_out")
        + _cgi("test_a_request_without_a_body_is_complete_with_its_variables"),
    ),
    Clause(
        "4.1",
        "MUST",
        "Values are case-sensitive.",
        _clauses("test_values_keep_their_case"),
    ),
    Clause(
        "4.1.1",
        "MUST",
        "AUTH_TYPE is the scheme by which the server authenticated the client.",
        _environ("test_without_remote_user_neither_user_nor_method_is_told"),
        reason="the web server's duty; --no-remote-user distrusts one that tells it unverified",
    ),
    Clause(
        "4.1.2",
        "MUST",
        "CONTENT_LENGTH is digits or nothing.",
        _cgi(
            "test_a_content_length_that_is_no_length_aborts_the_request",
            "test_a_content_length_of_too_many_digits_is_over_the_limit",
            "test_two_different_content_lengths_abort_the_request",
        )
        + _environ("test_digits_are_the_length", "test_anything_else_is_refused"),
    ),
    Clause(
        "4.1.2",
        "MUST",
        "It is set if and only if there is a message-body.",
        _cgi(
            "test_a_body_without_a_content_length_is_refused",
            "test_a_request_without_a_body_is_complete_with_its_variables",
        )
        + _client("test_a_body_of_unknown_length_arrives_over_scgi_with_its_length")
        + _cgihost_environment("test_content_length_is_absent_without_a_body")
        + _cgihost_bodies("test_a_body_of_unknown_length_gets_one"),
        reason="our clients send 0, too, where there is no body, as all servers do",
    ),
    Clause(
        "4.1.2",
        "MUST",
        "It is the length after transfer-codings were removed.",
        _cgi("test_a_content_length_beside_chunked_wins")
        + _environ(
            "test_a_length_wins_over_transfer_encoding",
            "test_a_chunked_upload_has_its_length_or_is_told_to_end",
        ),
        reason="removing them is the web server's duty",
    ),
    Clause(
        "4.1.3",
        "MUST",
        "CONTENT_TYPE is set if the request has the header; there is no default.",
        _client("test_headers_become_variables_and_repeated_ones_are_joined")
        + _environ("test_empty_ones_are_left_out")
        + _suite("the-body-s-type-and-length-have-one-name-each"),
    ),
    Clause(
        "4.1.4",
        "MUST",
        "GATEWAY_INTERFACE is set; the script ignores leading zeros in it.",
        _clauses("test_our_requests_have_every_variable_that_a_server_must_set"),
        reason="as a script we do not read it: no version changes what we do",
    ),
    Clause(
        "4.1.5",
        "MUST",
        "PATH_INFO is decoded, is empty or begins with a slash, and keeps its case.",
        _clauses("test_values_keep_their_case")
        + _environ("test_a_path_without_a_leading_slash_is_refused")
        + _client("test_a_target_becomes_a_decoded_path_and_a_raw_query")
        + _cve("test_cve_2024_38473_an_encoded_path_is_decoded_once")
        + _suite("an-encoded-percent-is-decoded-once"),
    ),
    Clause(
        "4.1.5",
        "MAY",
        "The server may reject values that it objects to.",
        _client("test_a_path_outside_the_script_name_is_refused"),
    ),
    Clause(
        "4.1.6",
        "SHOULD",
        "PATH_TRANSLATED is set along with PATH_INFO, and only then.",
        _cgihost_environment(
            "test_paths_are_told_apart_at_the_script",
            "test_path_translated_is_made_with_the_document_root",
        ),
    ),
    Clause(
        "4.1.7",
        "MUST",
        "QUERY_STRING is always set, empty without a query, and not decoded.",
        _clauses(
            "test_our_requests_have_every_variable_that_a_server_must_set",
            "test_values_keep_their_case",
        )
        + _environ("test_a_bare_request_has_all_that_pep_3333_requires")
        + _suite("an-absent-query-is-empty", "a-query-arrives-undecoded"),
    ),
    Clause(
        "4.1.8",
        "MUST",
        "REMOTE_ADDR is the address of the client.",
        _clauses("test_our_requests_have_every_variable_that_a_server_must_set")
        + _environ("test_the_web_server_is_never_taken_for_the_visitor"),
        reason="the web server's duty; we never put the web server's own address in its place",
    ),
    Clause(
        "4.1.9",
        "SHOULD",
        "REMOTE_HOST is the client's name, or its address in the name's place.",
        reason="the web server's duty; our client makes no look-ups",
    ),
    Clause(
        "4.1.10",
        "MAY",
        "REMOTE_IDENT may be what an RFC 1413 request found out.",
        reason="the web server's; none does",
    ),
    Clause(
        "4.1.11",
        "MUST",
        "REMOTE_USER is set where the server required authentication.",
        _environ("test_without_remote_user_neither_user_nor_method_is_told")
        + _nginx("test_a_user_name_that_nobody_checked_is_not_REMOTE_USER"),
        reason="the web server's duty",
    ),
    Clause(
        "4.1.12",
        "MUST",
        "REQUEST_METHOD is set, and case-sensitive.",
        _clauses(
            "test_our_requests_have_every_variable_that_a_server_must_set",
            "test_values_keep_their_case",
        )
        + _environ("test_a_missing_method_is_get", "test_a_missing_method_beside_a_body_is_refused")
        + _client("test_what_no_http_request_could_hold_is_refused"),
    ),
    Clause(
        "4.1.13",
        "MUST",
        "SCRIPT_NAME is set, decoded, leads the path, and holds nothing of PATH_INFO.",
        _clauses("test_our_requests_have_every_variable_that_a_server_must_set")
        + _environ(
            "test_the_application_sees_the_path_whatever_the_server_sends",
            "test_both_are_always_there",
            "test_a_script_name_repeated_in_path_info_is_taken_out",
        )
        + _client("test_a_script_name_is_taken_off_the_path"),
    ),
    Clause(
        "4.1.14",
        "MUST",
        "SERVER_NAME is the host that the request is directed to.",
        _clauses("test_our_requests_have_every_variable_that_a_server_must_set")
        + _client("test_the_host_header_names_the_server")
        + _environ("test_the_web_servers_own_address_is_the_better_name"),
    ),
    Clause(
        "4.1.15",
        "MUST",
        "SERVER_PORT is set, even to the default port.",
        _clauses("test_our_requests_have_every_variable_that_a_server_must_set")
        + _environ("test_the_port_of_https_is_443"),
    ),
    Clause(
        "4.1.16",
        "MUST",
        "SERVER_PROTOCOL is the name and version of the client's protocol.",
        _clauses("test_our_requests_have_every_variable_that_a_server_must_set")
        + _environ("test_a_bare_request_has_all_that_pep_3333_requires"),
    ),
    Clause(
        "4.1.17",
        "MUST",
        "SERVER_SOFTWARE is the name and version of the server that makes the request.",
        _clauses("test_our_requests_have_every_variable_that_a_server_must_set"),
        reason="our client tells its name and not its version",
    ),
    Clause(
        "4.1.18",
        "MUST",
        "HTTP_* are the client's headers: capitals, an underscore for each dash.",
        _client("test_headers_become_variables_and_repeated_ones_are_joined")
        + _suite("a-header-arrives"),
    ),
    Clause(
        "4.1.18",
        "MUST",
        "Repeated headers become one value of the same meaning, without line ends.",
        _client(
            "test_headers_become_variables_and_repeated_ones_are_joined",
            "test_what_no_http_request_could_hold_is_refused",
        )
        + _cgi("test_variables_that_no_environment_can_carry_are_refused")
        + _environ("test_lists_are_joined_in_order", "test_cookies_are_joined_with_semicolons"),
    ),
    Clause(
        "4.1.18",
        "SHOULD",
        "The server leaves out headers that authenticate, or that other variables tell.",
        _environ("test_repeated_headers_and_hostile_ones_are_settled")
        + _cgi("test_the_proxy_header_never_reaches_the_environment")
        + _suite("Authorization-arrives", "the-body-s-type-and-length-have-one-name-each")
        + _cgihost_environment(
            "test_httpoxy",
            "test_authorization_is_withheld_unless_asked_for",
            "test_a_header_cannot_make_a_variable_that_is_trusted",
        ),
        reason="Authorization passes to WSGI applications: they authenticate themselves, and web"
        " servers decide",
    ),
    Clause(
        "4.1.18",
        "SHOULD",
        "The server tells what belongs to the scheme, as HTTPS does.",
        _environ("test_the_scheme_comes_from_https_or_request_scheme")
        + _client("test_the_proxy_tells_a_fastcgi_backend_of_https"),
    ),
    Clause(
        "4.2",
        "MUST",
        "The message-body is read from standard input.",
        _cgi("test_the_variables_become_the_environment_and_the_body_standard_input")
        + _flup("test_a_cgi_body_is_bytes"),
    ),
    Clause(
        "4.2",
        "MUST",
        "The server provides at least CONTENT_LENGTH bytes.",
        _document(
            "test_a_body_shorter_than_its_content_length_is_refused",
            "test_a_body_longer_than_its_content_length_is_refused",
            "test_end_of_file_inside_the_body_aborts_the_request",
        ),
    ),
    Clause(
        "4.2",
        "MUST",
        "The script does not try to read more than CONTENT_LENGTH bytes.",
        _cgi("test_remaining_is_what_may_be_read", "test_the_body_is_content_length_bytes_long")
        + _flup("test_a_cgi_request_is_answered_whatever_its_standard_input_is"),
    ),
    Clause(
        "4.2",
        "MAY",
        "The script need not read any of it.",
        _document(
            "test_an_answer_may_end_before_the_body_has_arrived",
            "test_an_answer_may_end_before_the_request_does",
        )
        + _suite("a-body-that-nobody-read-harms-neither-answer-nor-next"),
    ),
    Clause(
        "4.2",
        "MUST",
        "The server removes transfer-codings and counts anew, or rejects the request.",
        _cgi(
            "test_a_chunked_upload_without_a_length_ends_with_standard_input",
            "test_what_apache_gives_a_script_for_a_chunked_upload_is_read_to_its_end",
        )
        + _suite("a-chunked-upload-arrives"),
        reason="the web server's duty; Apache removes them and does not count, which we bear",
    ),
    Clause(
        "4.3",
        "SHOULD",
        "A script rejects methods that it does not support.",
        _pep3333("test_every_method_reaches_the_application"),
        reason="the application's duty: it gets every method",
    ),
    Clause(
        "4.3.2",
        "MUST",
        "With POST the script checks CONTENT_LENGTH before it reads.",
        _cgi(
            "test_a_content_length_that_is_no_length_aborts_the_request",
            "test_remaining_is_what_may_be_read",
        ),
    ),
    Clause(
        "4.3.2",
        "SHOULD",
        "With POST the script checks CONTENT_TYPE.",
        reason="the application's duty",
    ),
    Clause(
        "4.3.3",
        "MUST",
        "The script provides no body for HEAD.",
        _wsgi(
            "test_the_body_is_dropped_and_the_length_of_a_list_told",
            "test_an_error_page_has_no_body_either",
        )
        + _suite("an-answer-to-HEAD-has-a-head-and-no-body"),
    ),
    Clause(
        "4.3.3",
        "MUST",
        "The server discards a body that a script provides for HEAD.",
        _suite("an-answer-to-HEAD-has-a-head-and-no-body")
        + _cgihost_answers("test_a_script_whose_body_nobody_wants_runs_to_its_end"),
        reason="as a server we are a proxy in front of wsgi.run, which discards it; the client by"
        " itself hands over what came",
    ),
    Clause(
        "4.3.4",
        "SHOULD",
        "A script that implements a method of HTTP/1.1 checks SERVER_PROTOCOL.",
        reason="the application's duty: it sees both",
    ),
    Clause(
        "4.4",
        "SHOULD",
        "The server parses an indexed query into the command line.",
        _cgihost_environment(
            "test_the_words_of_an_indexed_query",
            "test_an_indexed_query_is_not_the_default_nor_for_POST",
        ),
        reason="only where it is asked for, and with no word that begins with '-': CVE-2012-1823 and"
        " CVE-2024-4577 are what became of it",
    ),
    Clause(
        "4.4",
        "SHOULD",
        "The script does not use the command line where the query has an unencoded `=`.",
        _cli("test_cgi_ignores_what_a_visitor_can_write_behind_the_application")
        + _cgihost_environment("test_the_words_of_an_indexed_query"),
        reason="our own script's end never uses it, whatever the query",
    ),
    Clause(
        "5",
        "MAY",
        "The server may support scripts that write the whole HTTP response (NPH).",
        _cgihost_answers(
            "test_an_nph_script_answers_in_http",
            "test_an_nph_script_is_asked_in_http_1_0",
            "test_a_location_of_an_nph_script_is_the_visitors",
            "test_an_nph_script_that_gives_no_whole_answer_is_502",
        ),
        reason="its head is read and written anew, without what concerns the connection: 5.2 would"
        " have it untouched, which no web server lets a backend do",
    ),
    Clause(
        "6.1",
        "MUST",
        "The script always provides a response that is not empty.",
        _document(
            "test_an_answer_without_a_head_is_refused",
            "test_an_answer_without_a_whole_head_is_aborted",
        )
        + _pep3333("test_an_error_before_the_head_is_an_error_page_without_a_traceback")
        + _cli("test_cgi_answers_500_when_the_application_cannot_be_loaded"),
    ),
    Clause(
        "6.1",
        "MUST",
        "It is written to standard output, and nothing else is.",
        _cli("test_cgi_answers_the_request_in_the_environment")
        + _flup("test_a_cgi_answer_may_be_any_bytes"),
    ),
    Clause(
        "6.1",
        "MUST",
        "The script checks REQUEST_METHOD when it prepares its response.",
        _wsgi(
            "test_the_body_is_dropped_and_the_length_of_a_list_told",
            "test_the_application_cannot_change_the_method_for_us",
        ),
        reason="HEAD is what changes a response; the rest is the application's",
    ),
    Clause(
        "6.1",
        "MAY",
        "The server may end a script that sends nothing for too long.",
        _client("test_a_peer_that_does_not_answer_times_out")
        + _cgihost_limits("test_a_silent_script_is_504_and_ended"),
    ),
    Clause(
        "6.2",
        "MUST",
        "A response is one or more header fields, an empty line, and perhaps a body.",
        _document("test_the_answer_is_a_document_response")
        + _response(
            "test_a_head_is_the_status_the_headers_and_an_empty_line",
            "test_a_head_is_the_same_however_it_is_cut",
            "test_what_is_no_head_is_refused",
        ),
    ),
    Clause(
        "6.2",
        "MUST",
        "The response is one of the four types; the order of its fields means nothing.",
        _response(
            "test_a_head_is_the_same_however_it_is_cut",
            "test_a_local_redirect_is_told_from_a_client_redirect",
        ),
    ),
    Clause(
        "6.2.1",
        "MUST",
        "A document response has a Content-Type.",
        _clauses("test_our_own_pages_tell_their_type_and_charset"),
        reason="the application's duty for its own documents: a type that we add would be a guess",
    ),
    Clause(
        "6.2.1",
        "MUST",
        "Without Status a document is a 200.",
        _response("test_a_head_is_the_same_however_it_is_cut"),
    ),
    Clause(
        "6.2.2",
        "MUST",
        "A local redirect has a Location alone; the server answers as if that had been asked for.",
        _response("test_a_local_redirect_is_told_from_a_client_redirect")
        + _suite("a-redirect-reaches-the-client")
        + _cgihost_answers(
            "test_a_local_redirect_runs_the_other_script",
            "test_what_is_no_local_redirect_of_ours_goes_to_the_visitor",
            "test_a_circle_of_local_redirects_ends",
        ),
        reason="our scripts always send a Status, so theirs are redirects of the client; what leads"
        " out of our own scripts the visitor asks for",
    ),
    Clause(
        "6.2.3",
        "MUST",
        "A client redirect without a document is a 302.",
        _response("test_a_head_is_the_same_however_it_is_cut"),
    ),
    Clause(
        "6.2.4",
        "MUST",
        "A client redirect with a document has a Status, of 302 or another redirection.",
        _response("test_a_head_is_the_status_the_headers_and_an_empty_line")
        + _suite("a-redirect-reaches-the-client"),
    ),
    Clause(
        "6.3",
        "MUST",
        "At least one of Content-Type, Location and Status is there.",
        _response(
            "test_a_head_is_the_status_the_headers_and_an_empty_line",
            "test_a_head_may_have_no_headers",
        )
        + _cgihost_answers("test_garbage_is_502_and_the_log_says_why"),
        reason="our scripts always send Status; our client by itself takes a response without any"
        " for a 200",
    ),
    Clause(
        "6.3",
        "MUST",
        "None of these three appears more than once.",
        _clauses("test_a_field_of_cgi_stands_only_once")
        + _response("test_a_status_header_is_refused", "test_what_is_no_head_is_refused"),
        reason="of an answer that comes to us an equal second one is dropped",
    ),
    Clause(
        "6.3",
        "MUST",
        "Names are tokens, the same whatever their case.",
        _response(
            "test_every_token_is_a_name",
            "test_what_is_no_token_is_no_name",
            "test_a_head_is_the_same_however_it_is_cut",
        ),
    ),
    Clause(
        "6.3",
        "MUST",
        "A field without a value is equivalent to a field that was not sent.",
        _clauses("test_a_field_without_a_value_counts_as_absent")
        + _response("test_a_head_is_the_same_however_it_is_cut"),
        reason="so it is for the three fields of CGI; what an empty field of HTTP means, HTTP says",
    ),
    Clause(
        "6.3",
        "MUST",
        "A field is on one line: there are no continuation lines.",
        _response(
            "test_what_could_forge_a_header_is_refused",
            "test_no_control_character_passes_in_a_value",
            "test_what_is_no_head_is_refused",
        )
        + _properties("test_no_string_forges_a_line_in_a_head"),
    ),
    Clause(
        "6.3",
        "MUST",
        "White space may follow the colon, not precede it.",
        _response("test_a_head_is_the_same_however_it_is_cut", "test_what_is_no_head_is_refused"),
    ),
    Clause(
        "6.3.1",
        "MUST",
        "With a body comes a Content-Type.",
        _clauses("test_our_own_pages_tell_their_type_and_charset"),
        reason="the application's duty for its own documents",
    ),
    Clause(
        "6.3.1",
        "SHOULD",
        "The server does not guess a Content-Type, and sends the script's unchanged.",
        _pep3333(
            "test_the_answer_has_no_headers_but_those_of_the_application_and_the_length",
        )
        + _suite("answer-headers-keep-their-bytes"),
    ),
    Clause(
        "6.3.1",
        "SHOULD",
        "The script tells the charset of a text.",
        _clauses(
            "test_our_own_pages_tell_their_type_and_charset",
            "test_our_refusals_tell_their_type_and_charset",
        ),
    ),
    Clause(
        "6.3.2",
        "MUST",
        "Location is an absolute URI, or a path that begins with a slash.",
        reason="the application's duty; HTTP has allowed any reference since RFC 7231",
    ),
    Clause(
        "6.3.3",
        "MUST",
        "Status is three digits, a space and a reason, which may be empty.",
        _response(
            "test_a_status_needs_three_digits_and_a_space",
            "test_no_control_character_passes_in_a_status",
            "test_these_statuses_pass",
        ),
        reason="a bare number passes both ways, without the space: applications and scripts give it,"
        " and every web server takes it",
    ),
    Clause(
        "6.3.3",
        "MAY",
        "Any registered status code may be used.",
        _suite("the-status-299-is-passed-on", "the-status-418-is-passed-on"),
    ),
    Clause(
        "6.3.3",
        "SHOULD",
        "The script checks SERVER_PROTOCOL before it uses a code of HTTP/1.1.",
        reason="not claimed: no client of HTTP/1.0 fails at a 4xx that it does not know; otherwise"
        " the application's",
    ),
    Clause(
        "6.3.4",
        "MAY",
        "The script may send any other header of the protocol.",
        _suite("two-cookies-are-set-in-order", "long-and-odd-answer-headers-are-passed-on"),
    ),
    Clause(
        "6.3.4",
        "MUST",
        "It sends none that concern the connection between client and server.",
        _pep3333("test_hop_by_hop_headers_are_a_fatal_error")
        + _response("test_hop_by_hop_headers_are_refused", "test_an_interim_status_is_refused"),
    ),
    Clause(
        "6.3.4",
        "MUST",
        "The server translates CGI's header syntax to HTTP's, line ends above all.",
        _response("test_a_head_is_the_same_however_it_is_cut"),
        reason="the web server's duty; the client end takes both line ends",
    ),
    Clause(
        "6.3.4",
        "SHOULD",
        "The server resolves conflicts with headers that it would send itself.",
        _wsgi("test_a_declared_length_is_not_declared_again"),
        reason="the web server's duty; of ours there is only Content-Length",
    ),
    Clause(
        "6.3.5",
        "SHOULD",
        "Headers that extend CGI have names that begin with X-CGI-.",
        reason="we define none, and pass those of others on",
    ),
    Clause(
        "6.4",
        "MUST",
        "The server reads all of the body, up to the end of file.",
        _document("test_the_answer_ends_with_the_file"),
    ),
    Clause(
        "6.4",
        "SHOULD",
        "The body is sent unmodified.",
        _pep3333("test_the_chunks_are_not_altered")
        + _document("test_the_client_end_receives_what_the_server_end_sends")
        + _suite("an-answer-of-every-byte-value"),
    ),
    Clause(
        "7.2",
        "MUST",
        "Variables are environment variables of the same names.",
        _cgi("test_the_variables_become_the_environment_and_the_body_standard_input")
        + _cli("test_cgi_answers_the_request_in_the_environment"),
    ),
    Clause(
        "7.2",
        "MUST",
        "The words of the command line are escaped.",
        _cgihost_environment("test_the_words_of_an_indexed_query"),
        reason="they are words of an array, and no shell reads them on the way; a script gets them"
        " as they are",
    ),
    Clause(
        "7.2",
        "SHOULD",
        "The working directory is the script's.",
        _cgihost_environment("test_the_working_directory_is_the_scripts_folder"),
    ),
    Clause(
        "7.2",
        "MUST",
        "NUL is in no variable; text is ISO-8859-1.",
        _cgi("test_variables_that_no_environment_can_carry_are_refused")
        + _environ("test_bytes_become_latin_1_characters")
        + _flup("test_a_cgi_path_is_the_bytes_that_were_sent_as_latin_1")
        + _response("test_a_character_outside_latin_1_is_refused"),
    ),
    Clause(
        "7.2",
        "MUST",
        "A line ends with LF, and servers should also take CR LF.",
        _response(
            "test_a_head_is_the_same_however_it_is_cut",
            "test_a_head_is_the_status_the_headers_and_an_empty_line",
        ),
        reason="the client end takes both; the script's end writes CR LF, as PEP 3333's own gateway"
        " does and every web server takes",
    ),
    Clause(
        "8.1",
        "SHOULD",
        "The server documents its restrictions on paths, and its limits.",
        _cli("test_every_option_of_the_table_is_on_the_command_line_and_in_its_section")
        + _environ("test_dots_in_the_raw_target_do_not_lead_out_of_the_mount")
        + _cgihost_paths("test_what_is_not_there_is_404", "test_an_encoded_slash_names_no_script"),
        reason="the web server's duty for paths, but for those of scripts; our limits are options, each with its page",
    ),
    Clause(
        "8.2",
        "SHOULD",
        "Void and dotted segments of a path are handled with care.",
        _suite("a-double-slash-in-a-path")
        + _cve("test_cve_2019_11043_an_odd_path_arrives_as_it_was_sent")
        + _cgihost_paths("test_what_is_not_there_is_404", "test_path_info_may_be_anything_else"),
        reason="only where scripts are run does a path become a file's name",
    ),
    Clause(
        "8.2",
        "SHOULD",
        "CGI's own fields come first.",
        _response("test_a_head_is_the_status_the_headers_and_an_empty_line"),
        reason="Status does; Content-Type and Location stay where the application has put them",
    ),
    Clause(
        "9.2",
        "SHOULD",
        "Headers with secrets are not passed on unless asked for.",
        _cgihost_environment("test_authorization_is_withheld_unless_asked_for"),
        reason="for WSGI applications the web server's duty: what it sends, it was configured to send",
    ),
    Clause(
        "9.5",
        "SHOULD",
        "A script cannot interfere with the server.",
        _cve(
            "test_cve_2021_21703_nothing_a_worker_writes_harms_its_master",
            "test_cve_2024_9026_a_request_cannot_write_a_line_of_its_own_into_the_log",
        )
        + _wsgi("test_a_request_cannot_stop_the_server"),
    ),
    Clause(
        "9.6",
        "SHOULD",
        "A body may have any length, and no buffer is taken to hold all of it.",
        _live("test_a_body_that_nobody_reads_stops_being_received")
        + _scgi("test_a_length_field_allocates_nothing")
        + _suite("a-body-of-10-MiB-arrives", "a-chunked-upload-of-1-MiB-arrives"),
    ),
    Clause(
        "9.6",
        "SHOULD",
        "A body that is too long is answered with 413 or 503.",
        _cgi("test_a_content_length_of_too_many_digits_is_over_the_limit"),
        reason="any length passes that fits the counters; limits are the web server's and the"
        " application's",
    ),
    Clause(
        "9.6",
        "SHOULD",
        "A response's head and body may have any length.",
        _response("test_a_head_may_be_exactly_as_long_as_allowed", "test_a_longer_head_is_refused")
        + _suite("an-answer-of-10-MiB-in-pieces-without-a-length"),
        reason="of a body any; a head ends at 64 KiB in our client, as it does in web servers",
    ),
    Clause(
        "9.7",
        "SHOULD",
        "A script validates what came from the client before it relies on it.",
        _properties("test_any_request_is_an_environ_of_strings_or_a_fault_of_the_peer"),
        reason="lengths, names and paths are validated here, the rest by the application",
    ),
    Clause(
        "9.8",
        "SHOULD",
        "The server resolves `..` before it splits the path.",
        _environ("test_dots_in_the_raw_target_do_not_lead_out_of_the_mount"),
        reason="the web server's duty; where we split ourselves, dots lead nowhere",
    ),
    Clause(
        "9.9",
        "MUST",
        "A script that writes the HTTP response itself answers for HTTP's security.",
        reason="not claimed, see 5",
    ),
]

PEP3333 = [
    Clause(
        "The Application/Framework Side",
        "MUST",
        "Any callable will do as an application, and may be called more than once.",
        _pep3333("test_any_callable_will_do", "test_the_application_may_be_called_again"),
    ),
    Clause(
        "The Server/Gateway Side",
        "MUST",
        "The application is called once for each request.",
        _flup("test_a_request_that_finds_every_thread_busy_waits_its_turn")
        + _served("test_the_suite", "test_a_kept_connection_carries_one_request_after_another"),
    ),
    Clause(
        "Specification Details",
        "MUST",
        "The application is called with two positional arguments.",
        _pep3333("test_the_application_is_called_with_two_positional_arguments"),
    ),
    Clause(
        "Specification Details",
        "MUST",
        "environ is a builtin dict, which the application may change.",
        _pep3333("test_environ_is_a_builtin_dict_that_the_application_may_change"),
    ),
    Clause(
        "Specification Details",
        "MUST",
        "start_response takes two positional arguments and an optional third, and returns write().",
        _pep3333("test_it_takes_its_arguments_by_position_and_returns_write"),
    ),
    Clause(
        "Specification Details",
        "MUST",
        "The application returns an iterable of bytestrings.",
        _pep3333(
            "test_a_return_value_that_is_no_iterable_of_bytes_is_an_error",
            "test_a_chunk_that_is_not_bytes_is_an_error",
        ),
    ),
    Clause(
        "Specification Details",
        "MUST",
        "Each bytestring is transmitted before the next is asked for.",
        _pep3333("test_each_chunk_is_sent_before_the_next_is_asked_for"),
    ),
    Clause(
        "Specification Details",
        "SHOULD",
        "The bytes are not altered, line ends least of all.",
        _pep3333("test_the_chunks_are_not_altered") + _suite("an-answer-of-every-byte-value"),
    ),
    Clause(
        "Specification Details",
        "MUST",
        "Where len() of the iterable succeeds it is right, and the server may rely on it.",
        _wsgi("test_a_subclass_of_list_may_be_lazy_and_is_iterated"),
        reason="the application's duty; we rely on exact lists and tuples only",
    ),
    Clause(
        "Specification Details",
        "MUST",
        "close() of the iterable is called at the end, after an error or a disconnect too.",
        _pep3333("test_close_is_called_however_the_request_ends")
        + _live("test_a_peer_that_stops_reading_and_leaves_ends_the_application")
        + _suite(
            "close-is-called-once-after-the-answer",
            "a-client-that-leaves-its-answer-stops-the-application",
        ),
    ),
    Clause(
        "Specification Details",
        "MUST",
        "The server does not assume that start_response was called before it iterates.",
        _pep3333(
            "test_a_generator_may_call_it_at_its_first_chunk",
            "test_it_must_be_called_before_the_body",
        ),
    ),
    Clause(
        "Specification Details",
        "MUST",
        "The server uses no other attribute of the iterable.",
        _clauses("test_an_iterable_is_iterated_and_closed_and_not_asked_for_anything_else"),
        reason="for the report of a fault the frame of a generator is looked at",
    ),
    Clause(
        "environ Variables",
        "MUST",
        "The variables of CGI are there, unless they would be empty.",
        _pep3333("test_the_required_variables_are_there_and_not_empty")
        + _environ("test_a_bare_request_has_all_that_pep_3333_requires")
        + _suite("the-required-keys-are-there-and-native-strings"),
    ),
    Clause(
        "environ Variables",
        "MUST",
        "REQUEST_METHOD, SERVER_NAME and SERVER_PORT are never empty.",
        _pep3333("test_the_required_variables_are_there_and_not_empty")
        + _environ("test_the_connection_fills_what_is_missing_or_empty"),
    ),
    Clause(
        "environ Variables",
        "SHOULD",
        "HTTP_* are there exactly for the headers that the request has.",
        _environ("test_repeated_headers_and_hostile_ones_are_settled")
        + _suite("a-header-arrives", "a-header-without-a-value-is-empty"),
        reason="the web server says what there is; HTTP_PROXY is left out on purpose (httpoxy)",
    ),
    Clause(
        "environ Variables",
        "SHOULD",
        "Other variables of CGI and of SSL are provided as far as there are any.",
        _environ(
            "test_lower_case_and_dashed_names_pass",
            "test_the_scheme_comes_from_https_or_request_scheme",
        )
        + _captures("test_the_variables_of_a_capture_are_those_of_the_index"),
    ),
    Clause(
        "environ Variables",
        "SHOULD",
        "The server documents what variables it provides.",
        reason="a matter of the pages in docs/, which no test can judge",
    ),
    Clause(
        "environ Variables",
        "SHOULD",
        "Variables without a meaning, as REMOTE_USER without a login, are left out.",
        _clauses("test_who_was_not_asked_for_a_name_has_none")
        + _environ(
            "test_empty_ones_are_left_out",
            "test_without_remote_user_neither_user_nor_method_is_told",
        ),
    ),
    Clause(
        "environ Variables",
        "MUST",
        "Each variable of CGI is a str.",
        _pep3333("test_cgi_variables_are_native_strings_of_latin_1")
        + _properties("test_any_request_is_an_environ_of_strings_or_a_fault_of_the_peer")
        + _environ("test_every_real_request_passes_wsgirefs_validator"),
    ),
    Clause(
        "environ Variables",
        "MUST",
        "The wsgi.* variables are there: version (1, 0), url_scheme, input, errors.",
        _pep3333(
            "test_the_wsgi_variables_are_there", "test_wsgirefs_validator_accepts_every_environ"
        )
        + _environ("test_no_wsgi_key_comes_from_the_peer"),
    ),
    Clause(
        "environ Variables",
        "SHOULD",
        "wsgi.multithread, wsgi.multiprocess and wsgi.run_once tell the truth.",
        _master("test_the_flags_tell_the_truth"),
    ),
    Clause(
        "environ Variables",
        "SHOULD",
        "Variables of the server's own have lower-case names with a prefix unique to it.",
        _clauses("test_variables_of_the_servers_own_have_lower_case_names"),
        reason="fastcgi.data has the protocol's name for a prefix; wsgi.input_terminated is a common"
        " extension",
    ),
    Clause(
        "Input and Error Streams",
        "MUST",
        "wsgi.input has read, readline, readlines and iteration.",
        _pep3333("test_the_input_stream_is_the_servers_own")
        + _suite(
            "wsgi.input-gives-the-body-by-read()",
            "wsgi.input-gives-the-body-by-readline()",
            "wsgi.input-gives-the-body-by-readlines()",
            "wsgi.input-gives-the-body-by-iteration",
            "wsgi.input-gives-the-body-by-mixed",
        ),
    ),
    Clause(
        "Input and Error Streams",
        "SHOULD",
        "Reading past CONTENT_LENGTH finds an end of file.",
        _suite(
            "wsgi.input-gives-the-body-by-read(more)",
            "a-request-without-a-length-has-an-empty-body",
        )
        + _deadlines("test_post_without_a_body_has_an_empty_one"),
    ),
    Clause(
        "Input and Error Streams",
        "SHOULD",
        "read() without an argument returns all that is left.",
        _suite("wsgi.input-gives-the-body-by-read()"),
    ),
    Clause(
        "Input and Error Streams",
        "SHOULD",
        "An empty or exhausted stream gives empty bytestrings.",
        _clauses("test_the_input_has_an_end_that_stays")
        + _suite("a-POST-of-length-0-has-an-empty-body"),
    ),
    Clause(
        "Input and Error Streams",
        "SHOULD",
        "readline() takes a size.",
        _flup("test_readline_returns_no_more_than_it_was_asked_for")
        + _suite("wsgi.input-gives-the-body-by-readline(5)"),
    ),
    Clause(
        "Input and Error Streams",
        "MAY",
        "readlines() may take a hint.",
        _suite("wsgi.input-gives-the-body-by-readlines(20)"),
    ),
    Clause(
        "Input and Error Streams",
        "MUST",
        "wsgi.errors has write, writelines and flush.",
        _clauses("test_the_error_stream_takes_any_text")
        + _suite("what-goes-to-wsgi.errors-stays-out-of-the-answer"),
    ),
    Clause(
        "Input and Error Streams",
        "SHOULD",
        "wsgi.errors takes any unicode without an error.",
        _clauses("test_the_error_stream_takes_any_text"),
    ),
    Clause(
        "The start_response() Callable",
        "MUST",
        "The status is three digits, a single space and a reason, without control characters.",
        _pep3333("test_the_status_is_a_str_of_three_digits_and_a_reason")
        + _response(
            "test_a_status_needs_three_digits_and_a_space",
            "test_no_control_character_passes_in_a_status",
            "test_these_statuses_pass",
        ),
        reason="a bare number and blanks in the reason pass: other servers take them",
    ),
    Clause(
        "The start_response() Callable",
        "MUST",
        "The headers are a list, exactly, of (name, value) tuples.",
        _pep3333("test_the_headers_are_a_list_of_tuples_of_str")
        + _response("test_headers_are_a_list_of_pairs_of_str"),
    ),
    Clause(
        "The start_response() Callable",
        "MAY",
        "The server may change that list.",
        _pep3333("test_the_head_is_taken_as_it_is_at_the_call")
        + _suite("the-application-s-own-header-list-is-never-changed"),
        reason="we never do",
    ),
    Clause(
        "The start_response() Callable",
        "MUST",
        "A name is a field-name of HTTP, without colon.",
        _pep3333("test_a_colon_does_not_belong_to_a_name", "test_status_is_no_header")
        + _response("test_every_token_is_a_name", "test_what_is_no_token_is_no_name"),
    ),
    Clause(
        "The start_response() Callable",
        "MUST",
        "A value holds no control characters, neither inside nor at its end.",
        _pep3333(
            "test_header_names_and_values_hold_no_control_characters",
            "test_no_check_depends_on_assertions",
            "test_the_last_line_of_defence_does_not_depend_on_them_either",
        )
        + _flup("test_a_line_end_in_a_header_is_refused"),
    ),
    Clause(
        "The start_response() Callable",
        "MUST",
        "Headers that HTTP requires and the application left out are added.",
        _pep3333("test_the_answer_has_no_headers_but_those_of_the_application_and_the_length"),
        reason="Date and Server are the web server's; a Content-Type would be a guess",
    ),
    Clause(
        "The start_response() Callable",
        "MUST",
        "Names of headers are compared without regard to case.",
        _clauses("test_names_of_headers_are_compared_without_regard_to_case"),
    ),
    Clause(
        "The start_response() Callable",
        "SHOULD",
        "Hop-by-hop headers are a fatal error.",
        _pep3333("test_hop_by_hop_headers_are_a_fatal_error")
        + _response("test_hop_by_hop_headers_are_refused"),
    ),
    Clause(
        "The start_response() Callable",
        "SHOULD",
        "Errors in the headers are found in the call, while the application runs.",
        _wsgi("test_a_refused_start_response_may_be_mended_with_exc_info")
        + _pep3333("test_header_names_and_values_hold_no_control_characters"),
    ),
    Clause(
        "The start_response() Callable",
        "MUST",
        "The head is stored until the first bytes of the body, the first write() or the end.",
        _pep3333(
            "test_the_head_waits_for_the_first_chunk_that_is_not_empty",
            "test_the_first_write_sends_the_head_even_when_it_writes_nothing",
        ),
    ),
    Clause(
        "The start_response() Callable",
        "SHOULD",
        "With exc_info, before the head is sent, the new head replaces the stored one.",
        _pep3333(
            "test_with_exc_info_the_stored_head_is_replaced",
            "test_exc_info_may_come_with_the_first_call",
        ),
    ),
    Clause(
        "The start_response() Callable",
        "MUST",
        "With exc_info, after the head is sent, an error is raised: exc_info's own.",
        _pep3333("test_with_exc_info_after_the_head_the_error_is_raised"),
    ),
    Clause(
        "The start_response() Callable",
        "MUST",
        "A second call without exc_info is a fatal error.",
        _pep3333("test_a_second_call_needs_exc_info"),
    ),
    Clause(
        "The start_response() Callable",
        "MUST",
        "So it is where the first call raised an error.",
        _clauses("test_a_second_call_is_fatal_even_if_the_first_one_failed"),
    ),
    Clause(
        "The start_response() Callable",
        "SHOULD",
        "No reference to exc_info is kept beyond the call.",
        _clauses("test_no_reference_to_exc_info_is_kept"),
    ),
    Clause(
        "Handling the Content-Length Header",
        "SHOULD",
        "No more bytes are sent than it allows.",
        _pep3333("test_no_more_than_the_declared_length_is_sent")
        + _suite(
            "no-byte-beyond-the-declared-length-is-sent",
            "no-byte-of-a-list-beyond-the-declared-length-is-sent",
        ),
    ),
    Clause(
        "Handling the Content-Length Header",
        "SHOULD",
        "The iterating stops when enough was sent.",
        _wsgi("test_an_endless_body_ends_at_its_length", "test_a_longer_body_is_cut_and_reported"),
        reason="not kept to the letter, on purpose: one more chunk is asked for, so that a body that"
        " is longer is reported and a generator that is not runs to its end",
    ),
    Clause(
        "Handling the Content-Length Header",
        "SHOULD",
        "write() beyond it raises an error.",
        _pep3333("test_write_raises_nothing_but_sends_no_more_either")
        + _wsgi("test_what_write_gives_beyond_the_length_is_cut_and_reported_once"),
        reason="not kept on purpose: the bytes are dropped and reported, as those of the iterable are",
    ),
    Clause(
        "Handling the Content-Length Header",
        "SHOULD",
        "With too few bytes the connection is closed and the fault reported.",
        _pep3333("test_too_few_bytes_are_an_error_that_the_client_can_see")
        + _suite("a-body-shorter-than-declared-is-seen"),
    ),
    Clause(
        "Handling the Content-Length Header",
        "MAY",
        "Without it the server may compute it from a single bytestring.",
        _pep3333("test_it_is_computed_where_the_whole_body_is_known"),
    ),
    Clause(
        "Buffering and Streaming",
        "MUST",
        "No block is delayed: it is sent, or goes on being sent while the next is made.",
        _pep3333("test_each_chunk_is_sent_before_the_next_is_asked_for")
        + _client("test_events_pass_the_proxy_as_they_are_made")
        + _streaming("test_an_event_arrives_before_the_next_is_made"),
    ),
    Clause(
        "The write() Callable",
        "MUST",
        "When write() returns the bytes are sent, or on their way.",
        _pep3333(
            "test_what_write_is_given_is_sent_before_it_returns",
            "test_what_write_is_given_must_be_bytes",
        ),
    ),
    Clause(
        "The write() Callable",
        "MUST",
        "What the iterable yields is sent as always, after what write() was given.",
        _suite("write-comes-before-what-is-returned", "write-alone-is-an-answer"),
    ),
    Clause(
        "Unicode Issues",
        "MUST",
        "Strings hold nothing above U+00FF; an application's that do are a fatal error.",
        _pep3333("test_strings_outside_latin_1_are_an_error"),
    ),
    Clause(
        "Unicode Issues",
        "MUST",
        "The server gives the application no such strings either.",
        _pep3333("test_cgi_variables_are_native_strings_of_latin_1")
        + _properties("test_any_request_is_an_environ_of_strings_or_a_fault_of_the_peer")
        + _environ("test_script_name_is_text_and_the_path_is_bytes"),
    ),
    Clause(
        "Unicode Issues",
        "MUST",
        "Bytestrings are bytes, from wsgi.input as well as in the answer.",
        _pep3333(
            "test_a_chunk_that_is_not_bytes_is_an_error", "test_what_write_is_given_must_be_bytes"
        )
        + _flup("test_an_empty_scgi_body_is_bytes"),
    ),
    Clause(
        "Error Handling",
        "SHOULD",
        "Exceptions that end an application or its iteration are caught and logged.",
        _pep3333("test_an_error_before_the_head_is_an_error_page_without_a_traceback")
        + _wsgi("test_a_request_cannot_stop_the_server")
        + _served("test_the_server_logs_no_fault_of_its_own"),
    ),
    Clause(
        "Error Handling",
        "SHOULD",
        "The application can replace an answer that is not begun by its own error page.",
        _pep3333("test_the_application_can_catch_its_own_errors"),
    ),
    Clause(
        "Error Handling",
        "MAY",
        "An error message may be added to an answer that was begun.",
        _pep3333("test_an_error_after_the_head_ends_the_answer_visibly"),
        reason="we never do: the answer is given up, visibly",
    ),
    Clause(
        "HTTP 1.1 Expect/Continue",
        "MUST",
        "Expect: 100-continue works without the application's help.",
        _suite("a-client-that-waits-for-100-Continue-is-served"),
        reason="the web server's duty, seen to behind each of them",
    ),
    Clause(
        "Other HTTP Features",
        "SHOULD",
        "The server leaves the meaning of the answer to the application.",
        _pep3333(
            "test_every_method_reaches_the_application",
            "test_the_answer_has_no_headers_but_those_of_the_application_and_the_length",
        ),
    ),
    Clause(
        "Other HTTP Features",
        "MUST",
        "The server handles inbound hop-by-hop headers, such as Transfer-Encoding, itself.",
        _environ("test_a_chunked_upload_has_its_length_or_is_told_to_end")
        + _live("test_a_body_of_unknown_length_gets_one")
        + _suite("a-chunked-upload-arrives"),
        reason="decoding is the web server's; what it leaves open, the length, is settled here",
    ),
    Clause(
        "Other HTTP Features",
        "MUST",
        "An application sends no hop-by-hop headers.",
        _pep3333("test_hop_by_hop_headers_are_a_fatal_error"),
    ),
    Clause(
        "Thread Support",
        "SHOULD",
        "A server of many threads can also run an application in one.",
        _served("test_the_suite")
        + _master("test_the_flags_tell_the_truth")
        + _flup("test_prefork_runs_concurrent_requests_concurrently"),
    ),
    Clause(
        "Server Extension APIs",
        "MUST",
        "Extensions that replace a part of WSGI are used through that part.",
        reason="there is none but wsgi.file_wrapper; fastcgi.data replaces nothing",
    ),
    Clause(
        "Application Configuration",
        "SHOULD",
        "Whoever deploys an application can put names and values into environ.",
        _environ("test_lower_case_and_dashed_names_pass")
        + _cli("test_cgi_answers_the_request_in_the_environment"),
        reason="with fastcgi_param, SetEnv and their like: every variable passes",
    ),
    Clause(
        "URL Reconstruction",
        "MUST",
        "The URL can be put together from environ.",
        _pep3333("test_the_url_can_be_put_together_again"),
    ),
    Clause(
        "Supporting Older (<2.2) Versions of Python",
        "MUST",
        "An iterable by __getitem__ is an iterable.",
        _wsgi("test_an_iterable_by_getitem_is_an_iterable"),
    ),
    Clause(
        "Optional Platform-Specific File Handling",
        "MUST",
        "wsgi.file_wrapper takes a file and perhaps a block size, and returns an iterable.",
        _pep3333("test_file_wrapper_is_an_iterable_of_blocks_that_closes_the_file")
        + _wsgi("test_it_yields_blocks_and_closes_the_file"),
    ),
    Clause(
        "Optional Platform-Specific File Handling",
        "MUST",
        "It sends nothing until the server gets the iterable back.",
        _clauses("test_a_file_wrapper_that_is_not_returned_sends_nothing"),
    ),
    Clause(
        "Optional Platform-Specific File Handling",
        "MUST",
        "Its close() calls the file's, where there is one.",
        _wsgi("test_it_yields_blocks_and_closes_the_file", "test_what_has_no_close_is_not_closed")
        + _suite("a-wrapped-file-is-closed"),
    ),
    Clause(
        "Optional Platform-Specific File Handling",
        "MUST",
        "An object without a descriptor is sent as well.",
        _suite("a-wrapped-object-without-a-descriptor-is-sent"),
    ),
    Clause(
        "Optional Platform-Specific File Handling",
        "SHOULD",
        "A file is sent from where it stands, to its end or to Content-Length bytes.",
        _suite(
            "a-wrapped-file-is-sent-from-where-it-stands",
            "a-wrapped-file-with-its-length-is-sent",
            "a-wrapped-file-is-sent-whole",
        ),
    ),
]

SPECIFICATIONS = {
    "FastCGI 1.0": FASTCGI,
    "SCGI (2008-06-23)": SCGI,
    "RFC 3875": RFC3875,
    "PEP 3333": PEP3333,
}

PEP3333_SECTIONS = [
    "The Application/Framework Side",
    "The Server/Gateway Side",
    "Specification Details",
    "environ Variables",
    "Input and Error Streams",
    "The start_response() Callable",
    "Handling the Content-Length Header",
    "Buffering and Streaming",
    "The write() Callable",
    "Unicode Issues",
    "Error Handling",
    "HTTP 1.1 Expect/Continue",
    "Other HTTP Features",
    "Thread Support",
    "Server Extension APIs",
    "Application Configuration",
    "URL Reconstruction",
    "Supporting Older (<2.2) Versions of Python",
    "Optional Platform-Specific File Handling",
]
"""The sections of PEP 3333 in its own order; they have no numbers."""

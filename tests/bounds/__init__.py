"""How bounded the server is: a swarm of peers, the application they meet, and what they do to it.

    application.py  what is served: answers of every shape, that can be checked byte by byte
    served.py       a `gateways serve` process, and what its processes take of the machine
    watch.py        the same from outside, for as long as something lasts
    swarm.py        many peers at once in one epoll loop
    slow.py         peers that send or read a byte now and then
    abusive.py      peers that begin and never finish, leave, or send what is broken
    crowds.py       more connections than there is room for, and more requests than threads
    answers.py      what becomes of answers that nobody reads yet
    stress.py       everything at once, every answer verified

Each scenario takes the size that it is to have and fills a report: `tests/server/test_bounds.py`
runs them small and fast, `benchmarks/bounds.py` in full with the limits as shipped.
"""

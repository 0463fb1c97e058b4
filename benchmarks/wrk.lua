-- wrk's part: different requests in turn, and the result as one line of JSON.
--     wrk … -s wrk.lua URL -- VARIANTS BYTES_OF_BODY
local requests, at = {}, 0

function init(args)
   local variants, bytes = tonumber(args[1]), tonumber(args[2])
   wrk.headers["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
   wrk.headers["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
   wrk.headers["Accept-Language"] = "en-GB,en;q=0.8,fr-CH;q=0.5,de;q=0.3"
   wrk.headers["Accept-Encoding"] = "gzip, deflate, br, zstd"
   wrk.headers["Referer"] = "https://www.example.org/catalogue/items?page=2&sort=price"
   wrk.headers["Upgrade-Insecure-Requests"] = "1"
   if bytes > 0 then
      wrk.method = "POST"
      wrk.body = string.rep("0123456789abcdef", bytes / 16)
      wrk.headers["Content-Type"] = "application/octet-stream"
   end
   for each = 1, variants do
      wrk.headers["Cookie"] = string.format("id=%08x; session=eyJ1c2VyX2lkIjo0MiwiY3NyZiI6IjJmN2E5YyJ9; theme=dark", each * 2654435)
      requests[each] = wrk.format(nil, string.format("%s/item/%d?page=%d&sort=price", wrk.path, each * 7919 % 100000, each))
   end
end

function request()
   at = at % #requests + 1
   return requests[at]
end

function done(summary, latency)
   local e = summary.errors
   local wrong = e.connect + e.read + e.write + e.status + e.timeout
   local seconds = summary.duration / 1e6
   io.write(string.format(
      '\n{"ok": %d, "errors": %d, "rps": %.1f, "p50_us": %.1f, "p99_us": %.1f, "elapsed": %.3f}\n',
      summary.requests - e.status, wrong, summary.requests / seconds,
      latency:percentile(50), latency:percentile(99), seconds))
end

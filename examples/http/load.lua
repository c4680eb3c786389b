-- For wrk: posts items with names of their own, each from a trace of its own.
local prefix, count = "", 0

function init(args)
    prefix = args[1]
    math.randomseed(tonumber(args[2]))
end

local function hex(digits)
    local parts = {}
    for i = 1, digits / 4 do
        parts[i] = string.format("%04x", math.random(0, 65535))
    end
    return table.concat(parts)
end

function request()
    count = count + 1
    local headers = {
        ["content-type"] = "application/json",
        ["traceparent"] = "00-" .. hex(32) .. "-" .. hex(16) .. "-01",
    }
    local body = string.format('{"name": "%s-%d", "quantity": %d}', prefix, count, count % 100)
    return wrk.format("POST", "/items", headers, body)
end

function done(summary, latency, _)
    local errors = summary.errors
    io.write(string.format(
        '\n{"requests": %d, "seconds": %f, "status": %d, "socket": %d, "p50": %f, "p99": %f}\n',
        summary.requests, summary.duration / 1e6, errors.status,
        errors.connect + errors.read + errors.write + errors.timeout,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end

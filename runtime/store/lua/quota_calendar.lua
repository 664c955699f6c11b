-- Days and months of the calendar, UTC. Prepended to the quota scripts.
--
-- A *period* is a number: of days since 1970-01-01, or of months since the year 0. Dates of the proleptic
-- Gregorian calendar are counted from 1 March, after Howard Hinnant, "chrono-compatible low-level date
-- algorithms": so the leap day is a year's last one.

local DAY_MS = 24 * 3600 * 1000
local DAYS_OF_400_YEARS = 146097
local TO_1970 = 719468 -- days from 1 March of the year 0

local function month_of(days)
  local z = days + TO_1970
  local era = math.floor(z / DAYS_OF_400_YEARS)
  local day = z - era * DAYS_OF_400_YEARS
  local year = math.floor((day - math.floor(day / 1460) + math.floor(day / 36524) - math.floor(day / 146096)) / 365)
  local rest = day - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = math.floor((5 * rest + 2) / 153) -- 0 is March
  return (era * 400 + year) * 12 + month + 2
end

local function first_day_of(month)
  local since_march = month - 2
  local year, part = math.floor(since_march / 12), since_march % 12
  local era = math.floor(year / 400)
  local of_era = year - era * 400
  local day = of_era * 365 + math.floor(of_era / 4) - math.floor(of_era / 100) + math.floor((153 * part + 2) / 5)
  return era * DAYS_OF_400_YEARS + day - TO_1970
end

-- The period that a time is in, and when that ends, both of kind 'd' or 'm'.
local function period_at(kind, ms)
  local days = math.floor(ms / DAY_MS)
  return kind == 'd' and days or month_of(days)
end

local function end_of(kind, period)
  return (kind == 'd' and period + 1 or first_day_of(period + 1)) * DAY_MS
end

-- Where nobody has an owner, these functions cost a script next to nothing: what they need is defined when they are
-- called, as in notify_lazily.lua. `owned` is the key of the owner.

-- Whether an owner holds as many ports as it may, `most`, '0' for any number. Takes now.
local function is_at_quota(owned, most, ...)
  -- include owner: count_held
  return most ~= '0' and count_held({owned = owned}, ...) >= tonumber(most)
end

-- How many ports more an owner may hold; nil for any number. Takes now.
local function may_hold(owned, most, ...)
  -- include owner: count_held
  return most ~= '0' and tonumber(most) - count_held({owned = owned}, ...) or nil
end

-- Records that an owner holds ports. Takes now, the first, how many, and when the hold ends, nil if it does not.
local function own_lazily(owned, ...)
  -- include owner: add_holds, own_ports
  own_ports({owned = owned}, ..., add_holds({}, select(2, ...)))
end

-- Records that an owner does not hold ports any more. Takes now, the first, and how many.
local function disown_lazily(owned, ...)
  -- include owner: disown_ports
  disown_ports({owned = owned}, ...)
end

-- Records that an owner holds ports. Takes now, and pairs of score and port.
local function own_all_lazily(owned, ...)
  -- include owner: own_ports
  own_ports({owned = owned}, ...)
end

-- Records that an owner does not hold ports any more. Takes now, and the ports.
local function disown_all_lazily(owned, ...)
  -- include owner: disown_each
  disown_each({owned = owned}, ...)
end

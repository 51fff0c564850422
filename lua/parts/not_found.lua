-- Ends the script of a secret that opens nothing.
if call('EXISTS', service_key) == 0 then
  return redis.error_reply('SERVICE_NOT_FOUND there is no service ' .. service)
end
return redis.error_reply('OFFER_NOT_FOUND there is no such offer of ' .. service .. ', or it expired')

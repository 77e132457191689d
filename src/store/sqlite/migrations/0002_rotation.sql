-- When a responder takes over from the others of its issuer, and when it was taken out of use.
ALTER TABLE responder ADD COLUMN use_from INTEGER;
ALTER TABLE responder ADD COLUMN retired_at INTEGER;

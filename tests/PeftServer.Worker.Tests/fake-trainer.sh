#!/bin/bash
# A trainer without tensors, started as the real one is: fake-trainer.sh train --spec RUN/spec.json --supervised
# It does what the first line of its training file says.
run=$(dirname "$3")
cd "$run" || exit 1
script=$(head -n 1 training.jsonl)
number=$(cat events.jsonl 2>/dev/null | wc -l)

event() { # type message data
  number=$((number + 1))
  printf '{"number": %d, "created_at": 1700000000000, "type": "%s", "message": "%s", "data": %s}\n' "$number" "$1" "$2" "$3" >>events.jsonl
}

# A tenth of a second in which a command may come. The end of the input means stop.
listen() {
  read -r -t 0.1 command
  case $? in
    0)
      [ "$command" = cancel ] && { event cancelled "Cancelled" null; exit 0; }
      [ "$command" = pause ] && { event paused "Paused" null; exit 0; }
      ;;
    1) exit 0 ;;
  esac
}

train() { # steps
  mkdir -p checkpoints
  step=$(cat checkpoints/step 2>/dev/null || echo 0)
  while [ "$step" -lt "$1" ]; do
    step=$((step + 1))
    listen
    event metrics "Step $step/$1: training loss=1.5" "{\"step\": $step, \"total_steps\": $1, \"train_loss\": 1.5}"
    echo "$step" >checkpoints/.step && mv checkpoints/.step checkpoints/step
  done
}

finish() {
  mkdir -p .adapter
  printf '{"peft_type": "LORA"}' >.adapter/adapter_config.json
  printf 'the same weights from the same seed' >.adapter/adapter_model.safetensors
  mv .adapter adapter
  event succeeded "Training completed" '{"trained_tokens": 1234, "adapter": "adapter"}'
}

case $script in
  *quick*) train 3; finish ;;
  *slow*) train 40; finish ;;
  *long*) train 120; finish ;;
  *crash*) printf 'a stack trace\0 with \xff\xfe and \xed\xa0\x80 in it' >&2; exit 3 ;;
  *killed*) kill -KILL $$ ;;
  *babble*) printf 'no json \xff\0\n' >>events.jsonl; event metrics "Step 1/1" '{"step": 1, "train_loss": 1e999, "note": "a\u0000b"}'; finish ;;
  *fails*) event failed "Row 7 is empty" null; exit 1 ;;
  *environment*) { env; echo "niceness $(nice)"; } >&2; exit 7 ;;
  *stubborn*) trap '' TERM INT; while true; do sleep 0.2; done ;;
  *) echo "unknown script: $script" >&2; exit 2 ;;
esac

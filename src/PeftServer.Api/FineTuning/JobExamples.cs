using PeftServer.Api.Documentation;

namespace PeftServer.Api.FineTuning;

internal static class JobExamples
{
    extension(RouteHandlerBuilder endpoint)
    {
        public RouteHandlerBuilder WithJobExamples() => endpoint
            .WithExample("LoRA on every linear layer", """
                {
                  "model": "tiny-llama",
                  "training_file": "file-abc123",
                  "validation_file": "file-def456",
                  "suffix": "spam",
                  "seed": 1,
                  "peft": { "peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": "all-linear" },
                  "training": {
                    "num_train_epochs": 3,
                    "per_device_train_batch_size": 16,
                    "learning_rate": 2e-3,
                    "lr_scheduler_type": "cosine",
                    "warmup_ratio": 0.05
                  }
                }
                """)
            .WithExample("As with OpenAI", """
                {
                  "model": "tiny-llama",
                  "training_file": "file-abc123",
                  "suffix": "spam",
                  "method": {
                    "type": "supervised",
                    "supervised": { "hyperparameters": { "n_epochs": 3, "batch_size": 16, "learning_rate_multiplier": "auto" } }
                  },
                  "metadata": { "team": "mail" }
                }
                """)
            .WithExample("The least", """{ "model": "tiny-llama", "training_file": "file-abc123" }""");
    }
}

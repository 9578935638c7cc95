using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Kernels;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Training.Fast;

namespace PeftServer.Engine.Training;

/// <summary>Chooses between the tiers.</summary>
internal static class TrainingSteps
{
    /// <summary>The hand-written step where it applies, else autograd; <paramref name="why"/> says which and for what reason.</summary>
    public static ITrainingStep Create(
        CausalLanguageModel model, Adapter adapter, Device device, TrainingArguments arguments, AdapterConfig config, out string why)
    {
        if (Obstacle(model, adapter, device, arguments, config) is { } obstacle)
        {
            var plain = new AutogradStep(model, adapter);
            why = $"Training with {plain.Description}{(obstacle.Length > 0 ? $": {obstacle}" : "")}.";
            return plain;
        }

        var fast = new FastLlamaStep((LlamaForCausalLM)model, adapter, new CudaBlockKernels(device.index), ActivationMode.Keep);
        why = $"Training with {fast.Description}.";
        return fast;
    }

    private static string? Obstacle(CausalLanguageModel model, Adapter adapter, Device device, TrainingArguments arguments, AdapterConfig config)
    {
        if (device.type is not DeviceType.CUDA)
        {
            return "";
        }

        return !arguments.Fast ? "training.fast is false"
            : arguments.Deterministic ? "training.deterministic is true"
            : model.Dtype is not ScalarType.BFloat16 ? "the base is not in bfloat16"
            : !Nvrtc.IsAvailable ? "NVRTC was not found beside libtorch"
            : FastLlamaStep.Obstacle(model, adapter, (config as LoraConfig)?.LoraDropout ?? 0);
    }
}

using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Kernels;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Quantization;
using PeftServer.Engine.Training.Fast;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Training;

/// <summary>Chooses between the tiers.</summary>
internal static class TrainingSteps
{
    /// <summary>The hand-written step where it applies, else autograd; <paramref name="report"/> is told which and for what reason.</summary>
    public static ITrainingStep Create(
        CausalLanguageModel model, Adapter adapter, Device device, TrainingArguments arguments, AdapterConfig config, SftSettings settings, Action<string> report)
    {
        if (Obstacle(model, adapter, device, arguments, config, settings) is { } obstacle)
        {
            var plain = new AutogradStep(model, adapter, settings);
            report($"Training with {plain.Description}: {obstacle}.");
            return plain;
        }

        BlockKernels kernels = device.type is DeviceType.CUDA ? new CudaBlockKernels(device.index) : new CpuBlockKernels();
        var fast = new FastLlamaStep(model, adapter, kernels, ActivationPlan.Of(arguments.GradientCheckpointing), report);
        report($"Training with {fast.Description}.");
        return fast;
    }

    /// <summary>Why the hand-written step does not apply; null where it does. The model may be shapes alone.</summary>
    public static string? Obstacle(CausalLanguageModel model, Adapter adapter, Device device, TrainingArguments arguments, AdapterConfig config, SftSettings settings) =>
        !arguments.Fast ? "training.fast is false"
        : arguments.NeftuneNoiseAlpha > 0 ? "neftune_noise_alpha is set"
        : settings != new SftSettings() ? "the loss is not the plain one"
        : FastLlamaStep.Obstacle(model, adapter, (config as LoraConfig)?.LoraDropout ?? 0) is { } obstacle ? obstacle
        : device.type is DeviceType.CUDA ? CudaObstacle(FastDecoder.Of(model, out _)!, arguments)
        : CpuObstacle(FastDecoder.Of(model, out _)!, arguments);

    private static string? CudaObstacle(FastDecoder model, TrainingArguments arguments) =>
        arguments.Deterministic ? "training.deterministic is true"
        : model.Model.Dtype is not ScalarType.BFloat16 ? "the base is not in bfloat16"
        : !Nvrtc.IsAvailable ? "NVRTC was not found beside libtorch"
        : model.Hidden % 8 != 0 || model.Blocks.Any(block => block.FeedForwardWidth % 8 != 0) || model.Hidden > CudaBlockKernels.MaxHidden ? "the model's widths do not suit the kernels"
        : arguments.Quantization is BaseQuantization.Nf4 && !Suits(model, arguments.Quantization, Nf4Matrix.DefaultBlockSize) ? "the model's widths do not suit 4-bit blocks"
        : arguments.Quantization is BaseQuantization.Fp8 && CudaDriver.ComputeCapability(model.Model.Device.index) is not ( > 8, _) and not (8, >= 9) ? "the GPU has no 8-bit floats"
        : arguments.Quantization is BaseQuantization.Fp8 && !Suits(model, arguments.Quantization, 64) ? "the model's widths do not suit 8-bit products"
        : model.Heads.HeadDim is var width && (width % 16 != 0 || width > 256) ? $"its heads are {width} wide"
        : model.Blocks.FirstOrDefault(block => block.Scope.SoftCap > CudaBlockKernels.MaxSoftCap) is { } block ? $"attention's soft cap is {block.Scope.SoftCap}"
        : model.Blocks[0].QueryNorm is not null && !model.Blocks[0].NormsWholeRows && !System.Numerics.BitOperations.IsPow2(model.Heads.HeadDim) ? $"its heads, which are normed, are {model.Heads.HeadDim} wide"
        : null;

    /// <summary>Whether all widths of the blocks' matrices are whole multiples.</summary>
    private static bool Suits(FastDecoder model, BaseQuantization quantization, int multiple) => model.Model.PackableWeights(quantization).All(weight => weight.Shape.All(size =>
        size % multiple == 0 && size <= CudaBlockKernels.MaxQuantized));

    private static string? CpuObstacle(FastDecoder model, TrainingArguments arguments) =>
        model.Model.Dtype is not ScalarType.Float32 ? "the base is not in float32"
        : arguments.Quantization is not BaseQuantization.None ? "the base is packed"
        : !CpuBlockKernels.Suits(model.Hidden) || !model.Blocks.All(block => CpuBlockKernels.Suits(block.FeedForwardWidth)) ? "the model's widths do not suit the kernels"
        : null;
}

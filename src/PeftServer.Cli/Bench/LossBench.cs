using PeftServer.Engine.Adapters;
using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Quantization;
using PeftServer.Engine.Training;
using PeftServer.Engine.Training.Optimizers;
using PeftServer.Engine.Weights;
using TorchSharp;
using static TorchSharp.torch;

namespace PeftServer.Cli.Bench;

/// <summary>
/// The loss of every step from a given base, adapter and data, for comparing curves with another program that starts from the same: AdamW
/// (1e-4, decay 0.01), clipped at 1, over the batches in turn.
/// </summary>
internal static class LossBench
{
    /// <summary>
    /// <paramref name="folder"/> holds <c>base/</c> (config.json, safetensors), <c>adapter/</c> (a PEFT LoRA) and
    /// <c>batches.safetensors</c> with <c>ids</c> [batches, rows, length].
    /// </summary>
    public static Dictionary<string, object> Run(string folder, string deviceName, int steps, BaseQuantization quantization, string tier)
    {
        var device = Devices.Parse(deviceName);
        var dtype = device.type is DeviceType.CUDA ? ScalarType.BFloat16 : ScalarType.Float32;
        using var model = (CausalLanguageModel)PretrainedModel.Load(Path.Combine(folder, "base"), device, dtype, quantization: quantization);
        using var adapter = AdapterFile.Load(Path.Combine(folder, "adapter"), model);
        adapter.SetTraining(true);
        using var optimizer = new AdamW(adapter.Trainable, 0.9, 0.999, 1e-8, 0.01);
        using var step = TrainBench.Step(tier, null, model, adapter, device, null);
        var batches = Batches(Path.Combine(folder, "batches.safetensors"));

        var losses = new List<double>();
        for (var i = 0; i < steps; i++)
        {
            using var scope = NewDisposeScope();
            var batch = batches[i % batches.Count];
            var (loss, _) = step.ForwardBackward(batch, 1.0 / batch.Targets.Length, null);
            optimizer.ClipGradients(1);
            optimizer.Step(1e-4);
            optimizer.ZeroGrad();
            step.AdapterChanged();
            losses.Add(Math.Round(loss.item<float>() / batch.Targets.Length, 4));
        }

        return new() { ["case"] = $"losses:{tier}:{quantization.ToString().ToLowerInvariant()}", ["losses"] = losses };
    }

    private static List<SftBatch> Batches(string path)
    {
        using var scope = NewDisposeScope();
        using var file = SafetensorsFile.Open(path);
        var ids = file.Tensor("ids"); // [batches, rows, length]
        var (count, rows, length) = (ids.size(0), ids.size(1), (int)ids.size(2));
        var all = ids.to(ScalarType.Int32).contiguous().data<int>().ToArray();
        var every = Enumerable.Repeat(true, length).ToArray();
        return [.. Enumerable.Range(0, (int)count).Select(batch => SftBatch.Of(Enumerable.Range(0, (int)rows).Select(row =>
            new TrainingRow(all[(int)(((batch * rows) + row) * length)..(int)(((batch * rows) + row + 1) * length)], every, row + 1))))];
    }
}

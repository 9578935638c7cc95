using PeftServer.Engine.Adapters;
using PeftServer.Engine.Models;

namespace PeftServer.Goldens.Tests;

/// <summary>Objectives against TRL: the loss of every step, gradients, trained adapters.</summary>
public sealed class ObjectiveCases
{
    public static TheoryData<string> Cases => [.. GoldenFolder.Cases("objectives", "golden.safetensors")];

    [Theory]
    [MemberData(nameof(Cases))]
    public void Objective_Train_GivesTrlsNumbers(string name)
    {
        using var golden = new Golden(GoldenFolder.PathOf("objectives", name));
        using var scope = NewDisposeScope();
        using var model = PretrainedModel.Load(GoldenFolder.PathOf("models", golden.Meta.GetProperty("base").GetString()!), CPU, ScalarType.Float32);
        using var adapter = AdapterFile.Load(Path.Combine(golden.Folder, "init"), model);
        var rate = golden.Meta.GetProperty("optimizer").GetProperty("lr").GetDouble();

        AdapterCases.Train(golden, adapter, rate, Objective(golden, model, adapter));

        AdapterCases.CheckSaved(golden, adapter);
    }

    private static Func<Tensor> Objective(Golden golden, PretrainedModel model, Adapter adapter)
    {
        var (objective, settings) = (golden.Meta.GetProperty("objective").GetString(), golden.Meta.GetProperty("hyperparameters"));
        var plain = objective is "sft" && !golden.Has("micro_losses") && !settings.GetProperty("packing").GetBoolean()
            && settings.GetProperty("loss_type").GetString() == "nll" && settings.GetProperty("label_smoothing_factor").GetDouble() == 0;
        return plain
            ? () => CausalCase.Of(golden, model).TrainingLoss([adapter])
            : throw new NotSupportedException($"The objective '{objective}' of this case is not supported yet.");
    }
}

using System.Text.Json.Nodes;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Quantization;
using PeftServer.Engine.Training.Optimizers;

namespace PeftServer.Engine.Training;

/// <summary>
/// Writes what a run has learnt as a model of its own, adapter and base in one: from an adapter, a finished run, or a run's checkpoint. Whole weights that were trained (a full
/// fine-tuning) take the place of the base's; where embedding and head shared one and both were trained, each keeps its own.
/// </summary>
public static class MergedModel
{
    /// <summary>Merges the adapter in <paramref name="adapter"/> with the model in <paramref name="model"/>.</summary>
    /// <param name="model">Folder of the base.</param>
    /// <param name="adapter">Folder of the adapter.</param>
    /// <param name="folder">Folder to make.</param>
    /// <param name="dtype">Type of the weights; null: the base's.</param>
    /// <param name="shardBytes">Bytes of one file of weights at most.</param>
    public static void OfAdapter(string model, string adapter, string folder, ScalarType? dtype, long shardBytes)
    {
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        var labels = StartingAdapters.LabelsOf(adapter);
        var head = ModelCatalog.HeadFor(AdapterFile.ReadConfig(adapter).TaskType) ?? ModelCatalog.ServedHead(PretrainedConfig.Read(model)) ?? ModelHead.CausalLM;
        using var loaded = PretrainedModel.Load(model, CPU, dtype ?? TypeOf(model), head, labels: labels);
        using var trained = AdapterFile.Load(adapter, loaded);
        Write(loaded, head, trained, model, adapter, folder, shardBytes);
    }

    /// <summary>The same for a run: of its finished adapter, or where <paramref name="step"/> is given (or there is none yet) of a checkpoint.</summary>
    /// <param name="runFolder">The folder of spec.json.</param>
    /// <param name="step">Steps after which a checkpoint was written; null: the finished adapter, else the newest checkpoint.</param>
    /// <param name="folder">Folder to make.</param>
    /// <param name="dtype">Type of the weights; null: the base's.</param>
    /// <param name="shardBytes">Bytes of one file of weights at most.</param>
    /// <param name="say">Told what is taken.</param>
    public static void OfRun(string runFolder, int? step, string folder, ScalarType? dtype, long shardBytes, Action<string> say)
    {
        var spec = TrainingSpec.Read(Path.Combine(runFolder, TrainingSpec.FileName));
        var adapter = Path.Combine(runFolder, TrainingSpec.AdapterFolder);
        if (step is null && Directory.Exists(adapter))
        {
            say($"Merging the adapter of {runFolder}.");
            OfAdapter(spec.Model, adapter, folder, dtype, shardBytes);
            return;
        }

        var steps = TrainingCheckpoint.Steps(runFolder);
        if (steps.Count == 0 || (step is { } wanted && !steps.Contains(wanted)))
        {
            throw new TrainingException(steps.Count == 0
                ? $"There is neither an adapter nor a checkpoint in {runFolder}: the run has not come that far."
                : $"There is no checkpoint after step {step} in {runFolder}; there are some after {string.Join(", ", steps)}. save_total_limit says how many are kept.");
        }

        spec = AutoSettings.Resolve(spec, _ => { });
        spec = spec with { Training = spec.Training with { Quantization = BaseQuantization.None } };
        var models = new RunModels(spec, say);
        using var scope = NewDisposeScope();
        using var model = models.Load(CPU, dtype ?? TypeOf(spec.Model), models.ReadLabels());
        using var trained = models.CreateAdapter(model);
        using var optimizer = OptimizerFactory.Create(trained, spec.Training); // the weights of a checkpoint lie as its optimizer has them
        var state = TrainingCheckpoint.Restore(runFolder, optimizer, trained, step);
        trained.SetTraining(false);
        say($"Merging the checkpoint after step {state.StepsDone}.");
        using var frozen = no_grad();
        Write(model, spec.Method.Head, trained, spec.Model, null, folder, shardBytes);
    }

    private static void Write(PretrainedModel model, ModelHead head, Adapter adapter, string source, string? companions, string folder, long shardBytes)
    {
        adapter.Settle();
        Untie(model, adapter);
        adapter.MergeAndUnload();
        ModelFolder.Write(model, head, source, folder, shardBytes);
        if (companions is not null)
        {
            TakeCompanions(companions, folder);
        }
    }

    /// <summary>A head that shares its weight with an adapted embedding, or the other way around, gets its own.</summary>
    private static void Untie(PretrainedModel model, Adapter adapter)
    {
        if (model is CausalLanguageModel && model.OutputHead is { } path && model.Find(path) is Linear head
            && model.Sites().FirstOrDefault(site => site != head && ReferenceEquals(site.Weight, head.Weight)) is { } other
            && adapter.Parts.Any(entry => (entry.Site == head || entry.Site == other) && !entry.Part.MergesIntoTied && entry.Part is not BaseLayerCopy))
        {
            head.Untie();
        }
    }

    /// <summary>The template and the tokens that end a turn that the adapter was trained with are the model's from here on.</summary>
    private static void TakeCompanions(string adapter, string folder)
    {
        foreach (var name in AdapterCompanions.Names.Where(name => File.Exists(Path.Combine(adapter, name))))
        {
            var (from, to) = (Path.Combine(adapter, name), Path.Combine(folder, name));
            if (!name.EndsWith(".json", StringComparison.Ordinal) || !File.Exists(to))
            {
                File.Copy(from, to, overwrite: true);
                continue;
            }

            var merged = JsonNode.Parse(File.ReadAllText(to))!.AsObject(); // settings of sampling stay the base's
            foreach (var (field, value) in JsonNode.Parse(File.ReadAllText(from))!.AsObject())
            {
                merged[field] = value?.DeepClone();
            }

            File.WriteAllText(to, merged.ToJsonString(PeftJson.Indented));
        }
    }

    /// <summary>The type that a base says it is saved in; bfloat16 where it says nothing or one that is not trained in.</summary>
    private static ScalarType TypeOf(string model) => Devices.DtypeOf(PretrainedConfig.Read(model).Dtype) ?? ScalarType.BFloat16;
}

using PeftServer.Engine.Training;

namespace PeftServer.Worker.Training;

/// <summary>The folder of one run: what the trainer gets, and what it leaves.</summary>
internal sealed record RunFolder(string Path)
{
    public string Spec => In(TrainingSpec.FileName);

    public string Events => In(TrainingEvent.FileName);

    public string Adapter => In(TrainingSpec.AdapterFolder);

    public string Checkpoints => In("checkpoints");

    public string TrainingFile => In("training.jsonl");

    public string ValidationFile => In("validation.jsonl");

    /// <summary>Adapters that the method mixes, in folders 0, 1, ….</summary>
    public string Experts => In("experts");

    /// <summary>The adapter that training goes on from.</summary>
    public string StartingAdapter => In("starting_adapter");

    /// <summary>Copies for people; the truth is in <see cref="Events"/>.</summary>
    public string Output => In("stdout.log");

    /// <summary>Where the last words of a crash are.</summary>
    public string Errors => In("stderr.log");

    /// <summary>Which process runs here, so that a successor on this host can end it.</summary>
    public string Process => In("trainer.pid");

    private string In(string name) => System.IO.Path.Combine(Path, name);
}

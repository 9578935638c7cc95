namespace PeftServer.Engine.Adapters;

/// <summary>Settings of a method that does something else for each task; sequences say which they are of.</summary>
public interface IKnowsTasks
{
    /// <summary>How many tasks there are, counted from 0.</summary>
    int TaskCount { get; }

    private static int Of(AdapterConfig? config) => (config as IKnowsTasks)?.TaskCount ?? 1;

    /// <summary>What is wrong with a task's number; null where it is fine.</summary>
    static string? Fault(AdapterConfig? config, int task) => task >= 0 && task < Of(config) ? null
        : config is IKnowsTasks ? $"There is no task {task}: the adapter has {Of(config)}, counted from 0."
        : $"There is no task {task}: the model knows no tasks. Leave task_id out.";
}
